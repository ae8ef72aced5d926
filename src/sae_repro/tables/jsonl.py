"""jsonl and json: an object per line, or one array of objects, whichever the file begins with."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, TextIO

from sae_repro.errors import Named, StudyError, did_you_mean, shown
from sae_repro.tables.cells import Cell, Column, listed, refused, whole
from sae_repro.tables.utf8 import decoded

CHUNK = 1 << 20  # characters of an array that are read at once
SPACE = re.compile(r"[ \t\r\n]*")


class _Number(str):
    """A number as it is written."""


class _Object(list[tuple[str, Any]]):
    """The pairs of an object, among which a key may stand twice."""


DECODER = json.JSONDecoder(
    object_pairs_hook=_Object,
    parse_int=_Number,
    parse_float=_Number,
    # NaN, which JSON does not have, is how many programs write a missing value
    parse_constant=lambda word: None if word == "NaN" else _Number(word),
)


def json_rows(file: BinaryIO, what: Named, columns: Sequence[Column]) -> Iterator[tuple[Cell, ...]]:
    """The cells of each row; a key that is missing or null is None.

    Numbers and true and false as labels come as they are written. StudyError also where no row has
    a key that is asked for.
    """
    seen: dict[str, None] = {}  # keys, in the order of their first row
    empty, array = True, _is_array(file, what)
    with decoded(file, what, newline="") as text:
        for row, value in _values(text, what, array=array):
            empty = False
            if not isinstance(value, _Object):
                raise StudyError(
                    f"{what}: {row} is {_called(value)}; each row must be an object in braces"
                )
            yield tuple(_cell(value, what, row, column) for column in columns)
            seen.update(dict.fromkeys(key for key, _ in value))
    for column in columns:
        if not empty and column.name not in seen:
            raise StudyError(
                f"{column.asked}: {what.name} has no such column; it has {listed(list(seen))}"
                f"{did_you_mean(column.name, seen)}"
            )


def _is_array(file: BinaryIO, what: Named) -> bool:
    with decoded(file, what, newline="") as text:
        return _Stream(text).mark() == "["


def _values(text: TextIO, what: Named, *, array: bool) -> Iterator[tuple[str, Any]]:
    """(its name in messages, its value) of each row."""
    number = 0
    try:
        if array:
            for number, value in enumerate(_elements(_Stream(text)), 1):
                yield f"row {number}", value
        else:
            for line, content in enumerate(text, 1):
                if content.strip():
                    number += 1
                    yield f"row {number} (line {line})", DECODER.decode(content)
    except json.JSONDecodeError as error:
        row = f"row {number + 1}" if array else f"row {number} (line {line})"
        raise StudyError(
            f"{what}: {row} is no JSON ({error.msg} at character {error.pos + 1} of it); repair "
            "it: the file must be an object per line, or one array of objects"
        ) from None
    except RecursionError:
        row = f"row {number + 1}" if array else f"row {number} (line {line})"
        raise StudyError(f"{what}: {row} is nested too deeply to be read") from None


class _Stream:
    """JSON values one after another, of which a text holds more than fits into memory."""

    def __init__(self, text: TextIO) -> None:
        self._text, self._buffer, self._at = text, "", 0

    def mark(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            found = SPACE.match(self._buffer, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def skip(self) -> None:
        """Pass over the character that `mark` gave."""
        self._at += 1

    def value(self) -> Any:
        """The value that begins at the mark."""
        while True:
            try:
                value, self._at = DECODER.raw_decode(self._buffer, self._at)
                return value
            except json.JSONDecodeError as error:
                # a fault at the end of what was read may be no more than that end
                cut = error.pos > len(self._buffer) - 16 or error.msg.startswith("Unterminated")
                if not cut or not self._more():
                    raise self.fault(error.msg, error.pos) from None

    def fault(self, message: str, position: int | None = None) -> json.JSONDecodeError:
        """The error at the mark, or at a position of the buffer, counted from the row's begin."""
        rest = self._buffer[self._at :]
        return json.JSONDecodeError(message, rest, (position or self._at) - self._at)

    def _more(self) -> bool:
        rest = self._buffer[self._at :]
        chunk = self._text.read(max(CHUNK, len(rest)))
        self._buffer, self._at = rest + chunk, 0
        return bool(chunk)


def _elements(stream: _Stream) -> Iterator[Any]:
    """The elements of the array at the start of `stream`, which must end with it."""
    stream.mark()
    stream.skip()
    if stream.mark() != "]":
        yield stream.value()
        while stream.mark() == ",":
            stream.skip()
            stream.mark()
            yield stream.value()
    if stream.mark() != "]":
        raise stream.fault("expected a comma or ]")
    stream.skip()
    if stream.mark():
        raise stream.fault("text after the end of the array")


def _cell(pairs: _Object, what: Named, row: str, column: Column) -> Cell:
    values = [value for key, value in pairs if key == column.name]
    if len(values) > 1:
        raise StudyError(
            f"{what}: {row} has the key {shown(column.name)} {len(values)} times; keep one of them"
        )
    value = values[0] if values else None
    if value is None:
        if column.kind == "whole":
            raise refused(what, row, column, "nothing")
        return None
    number = isinstance(value, _Number)
    if number and column.kind == "whole":
        return whole(value, what, row, column)
    if column.kind == "label" and (number or isinstance(value, bool)):
        return json.dumps(value) if isinstance(value, bool) else str(value)
    if column.kind == "whole" or number or not isinstance(value, str):
        raise refused(what, row, column, _called(value))
    if not value.isascii():
        _check_characters(value, what, row, column)
    return value


def _check_characters(value: str, what: Named, row: str, column: Column) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise StudyError(
            f"{what}: {row}, column {shown(column.name)}: \\u{ord(value[error.start]):04x} is half "
            "of a character (a surrogate without its pair); write the text again as UTF-8"
        ) from None


def _called(value: Any) -> str:
    if isinstance(value, _Number):
        return f"the number {shown(value)}"
    if isinstance(value, str):
        return f"the text {shown(json.dumps(value, ensure_ascii=False))}"
    if isinstance(value, _Object):
        return "an object"
    return "a list" if isinstance(value, list) else json.dumps(value)
