"""parquet: text from columns of strings, labels from columns that have one way of being written."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from sae_repro.errors import Named, StudyError, shown
from sae_repro.tables.cells import Cell, Column, places, refused

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 128  # rows in memory

Write = Callable[[Any], Cell]
"""From a value of a column, not null, to its cell."""


def parquet_rows(
    file: BinaryIO, what: Named, columns: Sequence[Column]
) -> Iterator[tuple[Cell, ...]]:
    """The cells of each row; null is None.

    Labels: strings, whole numbers, true and false, dates (2024-01-31) and decimals as they are
    written; floating-point numbers in the fewest digits that name them, without `.0` (in a table
    with gaps whole numbers come as floats), NaN as None. Categories count as what they hold.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.seek(0)
    number = 0
    try:
        # neither a map of the file nor a thread that reads ahead: what was hashed is what is read
        table = pq.ParquetFile(file, memory_map=False, pre_buffer=False)
        schema = table.schema_arrow
        where = places(columns, schema.names, what.name)
        writes = [
            _write(schema.field(place).type, what, column)
            for place, column in zip(where, columns, strict=True)
        ]
        names = list(dict.fromkeys(column.name for column in columns))
        for batch in table.iter_batches(BATCH, columns=names, use_threads=False):
            values = [batch.column(column.name).to_pylist() for column in columns]
            for cells in zip(*values, strict=True):
                number += 1
                yield tuple(
                    _cell(value, write, what, f"row {number}", column)
                    for value, write, column in zip(cells, writes, columns, strict=True)
                )
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        text = " ".join(str(error).split())
        raise StudyError(
            f"{what}: can't be read beyond row {number} ({shown(text, 200)}); is it a whole "
            "parquet file? Fetch or write it again"
        ) from None


def _cell(value: Any, write: Write, what: Named, row: str, column: Column) -> Cell:
    if value is not None:
        return write(value)
    if column.kind == "whole":
        raise refused(what, row, column, "nothing")
    return None


def _write(type_: "pa.DataType", what: Named, column: Column) -> Write:
    """How a column's values are written; StudyError where they can't be what it is asked for."""
    import pyarrow as pa

    is_ = pa.types
    held = type_.value_type if is_.is_dictionary(type_) else type_
    text = is_.is_string(held) or is_.is_large_string(held) or is_.is_string_view(held)
    integer = is_.is_integer(held)
    if is_.is_null(held):
        return str
    if column.kind == "text" and text:
        return str
    if column.kind == "whole" and integer:
        return int
    if column.kind == "label":
        if text or integer or is_.is_decimal(held):
            return str
        if is_.is_boolean(held):
            return lambda value: "true" if value else "false"
        if is_.is_date(held):
            return lambda value: value.isoformat()
        if is_.is_floating(held):
            return _shortest(held.bit_width)
    wanted = {"text": "text", "label": "labels", "whole": "whole numbers"}[column.kind]
    raise StudyError(
        f"{column.asked}: {what.name} holds {held}, not {wanted}; "
        "write it as such, or choose another column"
    )


def _shortest(bits: int) -> Write:
    import numpy as np

    kind = {16: np.float16, 32: np.float32, 64: np.float64}[bits]

    def write(value: float) -> Cell:
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else str(kind(value))

    return write
