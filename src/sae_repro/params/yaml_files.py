"""YAML files, read within limits: plain mappings, lists, text, numbers, booleans and null.

YAML 1.2 (`1e-2` is a number, `on` a word), merges resolved. A file may come from anybody, and the
library's reader takes any: what a few bytes can blow up (aliases of aliases, endless nesting) or
make something else of (tags, dates, keys that are no text) is refused before it is built.
"""

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    ScalarEvent,
)

from sae_repro.errors import StudyError, one_line, shown

BYTES = 10_000_000
VALUES = 30_000
"""Values and keys, those behind an alias counted each time: some 4,000 cells, read in a second."""
LOCK_VALUES = 1_000_000
"""Of a dvc.lock, which repeats a study's values in every stage that reads them."""
DEPTH = 20
LENGTH = 10_000
"""Characters of one value."""
BITS = 64
"""Of a whole number: a wider one overflows on its way, or takes minutes to be printed."""


def read_yaml(path: Path, *, values: int = VALUES) -> dict[str, Any]:
    """The mapping in a YAML file of at most so many `values`.

    StudyError, one line, with the place where it breaks.
    """
    text = _text(path)
    try:
        _check_events(text, values)
        raw = YAML(typ="safe").load(text)
        if not isinstance(raw, dict):
            raise StudyError("holds no mapping of sections (corpus:, subject:, …)")
        _check_values(raw)
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from None
    except YAMLError as error:
        raise StudyError(f"{path}: {_brief(error)}") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Python's own, from the library's constructors: 0x_, 2001-99-99, 5,000 digits
        raise StudyError(f"{path}: holds a value that can't be read ({_brief(error)})") from None
    return raw


def _text(path: Path) -> str:
    """The content of a file of bounded size; StudyError for anything else of that name."""
    try:
        if path.exists() and not path.is_file():
            raise StudyError(f"{path}: is no file")
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
    except FileNotFoundError:
        raise StudyError(
            f"{path}: no such file; run in a study's folder, or make a study with `sae-repro new`"
        ) from None
    except OSError as error:
        raise StudyError(f"{path}: can't be read: {error.strerror}") from None
    if len(content) > BYTES:
        raise StudyError(f"{path}: more than {BYTES:,} bytes, the most that is read")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None


def _brief(error: Exception) -> str:
    text = one_line(" ".join(str(error).split())).replace(' in "<unicode string>"', "")
    # advice for programs, on how to read it all the same
    text = re.split(r" To suppress this check|; use sys\.", text, maxsplit=1)[0]
    return text if len(text) <= 300 else text[:299] + "…"


def _check_events(text: str, values: int) -> None:
    """StudyError where the structure of the file breaks a limit; nothing is built yet."""
    total, documents = 0, 0
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []  # (anchor, values before it) of each collection
    for event in YAML(typ="safe").parse(text):
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _at(event, "another document (---): one file holds one mapping")
            if event.version or event.tags:
                raise _at(event, "a directive (%YAML, %TAG): delete the line")
        elif isinstance(event, AliasEvent):
            if any(anchor == event.anchor for anchor, _ in opened):
                raise _at(event, f"*{one_line(event.anchor)} stands within itself")
            total += sizes.get(event.anchor, 1)
        elif isinstance(event, CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, CollectionStartEvent | ScalarEvent):
            if event.tag is not None:
                raise _at(event, f"a tag, {one_line(str(event.tag))}: none has a meaning here")
            if isinstance(event, CollectionStartEvent):
                opened.append((event.anchor, total))
            else:
                if len(event.value) > LENGTH:
                    raise _at(event, f"{len(event.value):,} characters; at most {LENGTH:,}")
                if event.anchor is not None:
                    sizes[event.anchor] = 1
            total += 1
        if len(opened) > DEPTH:
            raise _at(event, f"nested more than {DEPTH} deep")
        if total > values:
            raise _at(event, f"more than {values:,} values, those behind aliases counted each time")


def _at(event: Event, fault: str) -> StudyError:
    mark = event.start_mark
    return StudyError(f"line {mark.line + 1}, column {mark.column + 1}: {fault}")


def _check_values(raw: dict[Any, Any]) -> None:
    """StudyError, for the first of them, where a key is no text or a value is nothing of JSON's."""
    todo: list[tuple[str, Any]] = [("", raw)]
    while todo:
        where, value = todo.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str):
                    fault = f"{_named(key)} is a key, but no text: put it in quotes"
                    raise StudyError(f"{where}: {fault}" if where else fault)
                todo.append((f"{where}.{shown(key)}" if where else shown(key), inner))
        elif isinstance(value, list):
            todo += [(f"{where}.{number}", item) for number, item in enumerate(value)]
        elif isinstance(value, int) and value.bit_length() > BITS:
            raise StudyError(f"{where}: a whole number of more than {BITS} bits")
        elif not isinstance(value, str | int | float | None):
            raise StudyError(f"{where}: {_named(value)}, where text is meant: put it in quotes")


def _named(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > BITS:
        return f"a whole number of more than {BITS} bits"
    return f"{shown(value)} ({type(value).__name__})"
