"""Exact readers of local tables: txt, csv, jsonl, json and parquet, from an open file.

    for cells in reader_of("news.csv", "corpus.source.files")(file, named, columns):
        ...  # a tuple, one cell per column that was asked for

Text and labels come as they are written: no type is guessed, no cell reads as a missing value, and
columns that nobody asked for may hold anything. A file streams through memory, row by row.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import BinaryIO

from sae_repro.errors import Named, StudyError
from sae_repro.tables.cells import Cell, Column
from sae_repro.tables.delimited import csv_rows
from sae_repro.tables.jsonl import json_rows
from sae_repro.tables.paragraphs import paragraphs
from sae_repro.tables.parquet import parquet_rows

Reader = Callable[[BinaryIO, Named, Sequence[Column]], Iterator[tuple[Cell, ...]]]
"""From a file at its start, its name in messages and columns, to the cells of each row."""

FORMATS: Mapping[str, Reader] = {
    ".txt": paragraphs,
    ".jsonl": json_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
}
"""By the end of a file's name, in lower case."""


def reader_of(name: str, key: str) -> Reader:
    """The reader for a file of this name; StudyError, at the params.yaml key `key`, if none."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in FORMATS:
        raise StudyError(f"{key}: {suffix or name} can't be read; allowed are {', '.join(FORMATS)}")
    return FORMATS[suffix]
