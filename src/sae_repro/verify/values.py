"""Values in a file of results, each with its place: by the file's kind."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Values = Iterator[tuple[str, Any]]


@dataclass(frozen=True)
class Printed:
    """A number in a text, rounded to a multiple of `unit`; 0 for one without decimals."""

    value: float
    unit: float
    text: str

    def __str__(self) -> str:
        return self.text


NUMBER = re.compile(
    r"(?<![\w.#])[-−+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.(?P<decimals>\d+))?"
    r"(?:[eE](?P<exponent>[-+]?\d+))?(?![\w])"
)
LARGEST_EXPONENT = 300
"""About that of a float, on either side."""
# matplotlib names clips and markers by a hash of what they show
HASHED = re.compile(r'(?<=id=")[^"]*|(?<=#)[0-9a-zA-Z]{9,}')
# columns of a text are as wide as their longest number
WIDTH = re.compile(r"\s+|-{2,}")


def text_values(path: Path) -> Values:
    """The numbers of a text by line, and the words between them without their spacing."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = HASHED.sub("", line) if path.suffix == ".svg" else line
        end, position = 0, 0
        numbers = (found for found in NUMBER.finditer(line) if _finite(found))
        for position, found in enumerate(numbers, 1):
            yield f"line {number}, text {position}", _words(line[end : found.start()])
            yield f"line {number}, number {position}", _printed(found)
            end = found.end()
        yield f"line {number}, text {position + 1}", _words(line[end:])


def _words(text: str) -> str:
    return WIDTH.sub(" ", text).strip()


def _finite(found: re.Match[str]) -> bool:
    """Whether it is a number: a piece of a hash, such as 12e345, is text."""
    return abs(int(found["exponent"] or 0)) < LARGEST_EXPONENT


def _printed(found: re.Match[str]) -> Printed:
    text = found[0]
    value = float(text.replace(",", "").replace("−", "-"))
    exponent = int(found["exponent"] or 0)
    rounded = found["decimals"] is not None or found["exponent"] is not None
    unit = 10.0 ** (exponent - len(found["decimals"] or "")) if rounded else 0.0
    return Printed(value, unit, text)


def csv_values(path: Path) -> Values:
    """The fields of a CSV file by line, row and column."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    header = rows[0] if rows else []
    for number, row in enumerate(rows[1:], 2):
        named = row and isinstance(_number(row[0]), str)  # a number may be what differs
        label = f"line {number} ({row[0]})" if named else f"line {number}"
        for column, value in zip(header, row, strict=True):
            yield f"{label}, column {column}", _number(value)
    yield "header", header


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def json_values(path: Path) -> Values:
    """The values of a JSON file by their keys."""
    yield from _flatten(json.loads(path.read_text(encoding="utf-8")), "")


def jsonl_values(path: Path) -> Values:
    """The values of a file of JSON lines by line and keys."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        yield from _flatten(json.loads(line), f"line {number}")


def _flatten(value: Any, where: str) -> Values:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _flatten(inner, f"{where}[{number}]")
    else:
        yield where or "value", value


def npy_values(path: Path) -> Values:
    """The one array of a .npy file."""
    yield "array", np.load(path, mmap_mode="r", allow_pickle=False)


def safetensors_values(path: Path) -> Values:
    """The tensors of a safetensors file by name."""
    from safetensors.numpy import load_file

    for name, tensor in sorted(load_file(path).items()):
        yield f"tensor {name}", tensor


def parquet_values(path: Path) -> Values:
    """The columns of a Parquet file by name."""
    import pandas as pd

    frame = pd.read_parquet(path)
    for column, values in frame.items():
        yield (
            f"column {column}",
            values.to_numpy(dtype=None if values.dtype.kind in "fiub" else object),
        )


READERS: dict[str, Callable[[Path], Values]] = {
    ".csv": csv_values,
    ".json": json_values,
    ".jsonl": jsonl_values,
    ".npy": npy_values,
    ".safetensors": safetensors_values,
    ".parquet": parquet_values,
    ".md": text_values,
    ".tex": text_values,
    ".html": text_values,
    ".txt": text_values,
    ".svg": text_values,
}
