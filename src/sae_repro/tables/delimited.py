"""csv as RFC 4180 has it: commas, a header, fields in double quotes where they need it."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from sae_repro.errors import Named, StudyError, shown
from sae_repro.tables.cells import Cell, Column, listed, places, whole
from sae_repro.tables.utf8 import decoded, without_nul

LONGEST_FIELD = 2**31 - 1
OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
HINTS = {
    "unexpected end of data": "a quote is opened and never closed",
    "',' expected after '\"'": "text follows a closing quote; a quote within quotes is written "
    'twice ("")',
}
"""What the errors of Python's csv mean here."""


def csv_rows(file: BinaryIO, what: Named, columns: Sequence[Column]) -> Iterator[tuple[Cell, ...]]:
    """The cells of each row, a label that is empty as None; blank lines are no rows."""
    with decoded(file, what, newline="") as text:
        records = _records(without_nul(text, what), what)
        _, header = next(records, (1, []))
        if not header:
            return
        where = places(columns, header, what.name, _hint(header))
        for number, (line, fields) in enumerate(records, 1):
            row = f"row {number} (line {line})"
            if len(fields) != len(header):
                raise _ragged(what, row, fields, header)
            yield tuple(
                _cell(fields[place], what, row, column)
                for place, column in zip(where, columns, strict=True)
            )


def _cell(field: str, what: Named, row: str, column: Column) -> Cell:
    if column.kind == "whole":
        return whole(field, what, row, column)
    return field or (None if column.kind == "label" else field)


def _records(lines: Iterable[str], what: Named) -> Iterator[tuple[int, list[str]]]:
    """(its first line, its fields) of the header and of each row."""
    reader = csv.reader(lines, strict=True)
    number, width = 0, 0
    while True:
        line = reader.line_num + 1
        # the limit is the whole process's: raised for this call alone
        limit = csv.field_size_limit(LONGEST_FIELD)
        try:
            fields = next(reader, None)
        except csv.Error as error:
            row = f"row {number} (line {line})" if number else f"the header (line {line})"
            raise StudyError(f"{what}: {row}: {HINTS.get(str(error), error)}; repair it") from None
        finally:
            csv.field_size_limit(limit)
        if fields is None:
            return
        if not fields or (width > 1 and len(fields) == 1 and not fields[0].strip()):
            continue
        yield line, fields
        width = width or len(fields)
        number += 1


def _hint(header: Sequence[str]) -> str:
    for delimiter, name in OTHER_DELIMITERS.items():
        if len(header) == 1 and delimiter in header[0]:
            return f" (one column: {name} don't separate columns; save the file with commas)"
    return " (a csv starts with a line that names its columns)"


def _ragged(what: Named, row: str, fields: Sequence[str], header: Sequence[str]) -> StudyError:
    if len(fields) == len(header) + 1 and not fields[-1]:
        cause = "it ends in a comma: remove it, or end the header in one, too"
    elif len(fields) > len(header):
        cause = "a text with a comma in it must be quoted"
    else:
        cause = f"it begins with {shown(fields[0])}: is it cut off?"
    return StudyError(
        f"{what}: {row} has {len(fields)} fields and the header {len(header)} ({listed(header)}); "
        f"{cause}"
    )
