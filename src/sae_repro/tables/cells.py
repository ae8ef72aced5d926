"""Columns that are asked for, and what their cells become."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sae_repro.errors import Named, StudyError, did_you_mean, shown

Cell = str | int | None
"""Text or a label; a whole number; None: the row has none."""

Kind = Literal["text", "label", "whole"]

WHOLE = re.compile(r"-?[0-9]{1,18}")  # what int64 holds, whatever the digits


@dataclass(frozen=True)
class Column:
    """A column that is asked for: a text, a label as it is written, or whole numbers."""

    name: str
    kind: Kind
    asked: str
    """Where it is asked for, as messages name it: corpus.source.columns = text."""


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names of columns for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) or "(no name)" for name in names[:most]) + more


def places(
    columns: Iterable[Column], names: Sequence[str], table: str, hint: str = ""
) -> list[int]:
    """Where in `names`, a table's header, the columns stand; StudyError unless each does once."""
    found = []
    for column in columns:
        times = names.count(column.name)
        if not times:
            raise StudyError(
                f"{column.asked}: {table} has no such column; it has {listed(names)}"
                f"{did_you_mean(column.name, names)}{hint}"
            )
        if times > 1:
            raise StudyError(
                f"{column.asked}: {table} has {times} columns of this name; rename all but one"
            )
        found.append(names.index(column.name))
    return found


def refused(what: Named, row: str, column: Column, found: str) -> StudyError:
    """The error for a cell that its column can't hold."""
    wanted = {
        "text": "not text; write it as text, or choose another column",
        "label": "not a label; write it as text, or choose another column",
        "whole": "not a whole number",
    }[column.kind]
    return StudyError(f"{what}: {row}, column {shown(column.name)}: holds {found}, {wanted}")


def whole(written: str, what: Named, row: str, column: Column) -> int:
    """The whole number that is `written` in a cell."""
    if not WHOLE.fullmatch(written.strip()):
        raise refused(what, row, column, shown(written) or "nothing")
    return int(written)
