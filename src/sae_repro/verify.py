"""Comparison of two checkouts' results, bit for bit: the first difference in each file."""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.contents import CONTENTS
from sae_repro.errors import StudyError
from sae_repro.files import sha256_file

PLACES = ("artifacts", "reports")


@dataclass(frozen=True)
class Difference:
    """One file that differs: where in it, and by how much if it is a number."""

    file: str
    where: str
    relative: float | None = None
    """Largest relative difference of its numbers; None where more than numbers differs."""


@dataclass
class Verdict:
    """The result of a comparison."""

    files: int = 0
    size: int = 0
    differences: list[Difference] = field(default_factory=list)

    def within(self, rtol: float) -> bool:
        """Whether all differences are numbers that agree to `rtol`."""
        return all(d.relative is not None and d.relative <= rtol for d in self.differences)


def verify(ours: Path, theirs: Path) -> Verdict:
    """Compare artifacts/ and reports/ of two study folders; StudyError where one has none."""
    files = [_listing(folder) for folder in (ours, theirs)]
    verdict = Verdict()
    for name in sorted(files[0] | files[1]):
        for folder, names in zip((ours, theirs), files, strict=True):
            if name not in names:
                verdict.differences.append(Difference(name, f"missing in {folder}"))
        if name in files[0] and name in files[1]:
            verdict.files += 1
            verdict.size += (ours / name).stat().st_size
            difference = _difference(name, ours / name, theirs / name)
            if difference is not None:
                verdict.differences.append(difference)
    # contents.json has the hashes of the other files: it tells something where they are the same
    others = [d for d in verdict.differences if Path(d.file).name != CONTENTS]
    verdict.differences = others or verdict.differences
    return verdict


def _listing(folder: Path) -> set[str]:
    files = {
        path.relative_to(folder).as_posix()
        for place in PLACES
        for path in (folder / place).rglob("*")
        if path.is_file() and path.name != ".gitignore"
    }
    if not files:
        raise StudyError(f"{folder}: no artifacts or reports there; run `dvc repro` first")
    return files


def _difference(name: str, ours: Path, theirs: Path) -> Difference | None:
    try:
        if sha256_file(ours) == sha256_file(theirs):
            return None
        return _compare(name, ours, theirs)
    except Exception as error:  # a damaged file raises whatever its reader happens to hit
        reason = " ".join(str(error).split()) or type(error).__name__
        return Difference(name, f"can't be read: {reason}")


def _compare(name: str, ours: Path, theirs: Path) -> Difference:
    readers = {
        ".csv": _csv_values,
        ".json": _json_values,
        ".jsonl": _jsonl_values,
        ".npy": _npy_values,
        ".safetensors": _safetensors_values,
        ".parquet": _parquet_values,
    }
    reader = readers.get(ours.suffix)
    if reader is None:
        return Difference(name, _first_byte(ours, theirs))
    pairs = _by_place(reader(ours)), _by_place(reader(theirs))
    return _first_value(name, *pairs) or Difference(name, _first_byte(ours, theirs))


def _by_place(values: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    """The values by their place; of two with one name, a number is added to the second's."""
    places: dict[str, Any] = {}
    for where, value in values:
        place, number = where, 2
        while place in places:
            place, number = f"{where} ({number})", number + 1
        places[place] = value
    return places


def _first_value(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Difference | None:
    """The first differing value of two readings, and the largest relative difference of all."""
    if list(ours) != list(theirs):
        others = sorted(set(ours) ^ set(theirs)) or ["another order"]
        return Difference(name, f"other columns, keys or rows: {', '.join(others[:3])}")
    first, largest, only_numbers = "", 0.0, True
    for where, value in ours.items():
        other = theirs[where]
        if isinstance(value, np.ndarray):
            part, relative = _arrays(value, other)
        elif _same(value, other):
            continue
        else:
            part, relative = f"{value} against {other}", _relative(value, other)
        if part:
            first = first or f"{where}: {part}"
            only_numbers &= relative is not None
            largest = max(largest, relative or 0.0)
    return Difference(name, first, largest if only_numbers else None) if first else None


def _same(a: Any, b: Any) -> bool:
    """Whether two values are equal: NaN is to NaN, arrays of one shape are by their values."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.shape(a) == np.shape(b) and all(
            _same(x, y) for x, y in zip(np.ravel(a).tolist(), np.ravel(b).tolist(), strict=True)
        )
    both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return both_nan or a is b or bool(a == b)


def _relative(a: object, b: object) -> float | None:
    """The relative difference of two finite numbers; None where one is something else."""
    numbers = [x for x in (a, b) if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)):
        return None
    x, y = map(float, numbers)
    return abs(x - y) / max(abs(x), abs(y), 1e-12)


def _arrays(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> tuple[str, float | None]:
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}", None
    if a.dtype.kind not in "fiub":
        pairs = zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)
        for row, (one, other) in enumerate(pairs):
            if not _same(one, other):
                return f"row {row}: {one} against {other}", None
        return "", 0.0
    differs = (a != b) & ~((a != a) & (b != b))
    if not differs.any():
        return "", 0.0
    x, y = a.astype(np.float64), b.astype(np.float64)
    finite = bool((np.isfinite(x) & np.isfinite(y))[differs].all())
    first = np.unravel_index(int(np.argmax(differs)), a.shape)
    # relative to the array's own scale: single entries near zero are no measure
    x, y = (np.where(np.isfinite(part), part, 0.0) for part in (x, y))
    scale = max(float(np.abs(x).max()), float(np.abs(y).max()), 1e-12)
    largest = float(np.abs(x - y).max())
    place = ", ".join(str(int(n)) for n in first)
    return (
        f"[{place}]: {a[first]!s} against {b[first]!s} ({int(differs.sum())} of {a.size} differ, "
        f"by {'at most' if finite else 'NaN or infinity, else'} {largest:.3g})"
    ), largest / scale if finite else None


def _csv_values(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    header = rows[0] if rows else []
    for number, row in enumerate(rows[1:], 2):
        label = f"line {number} ({row[0]})" if row else f"line {number}"
        for column, value in zip(header, row, strict=True):
            yield f"{label}, column {column}", _number(value)
    yield "header", header


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _json_values(path: Path) -> Iterator[tuple[str, Any]]:
    yield from _flatten(json.loads(path.read_text(encoding="utf-8")), "")


def _jsonl_values(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        yield from _flatten(json.loads(line), f"line {number}")


def _flatten(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _flatten(inner, f"{where}[{number}]")
    else:
        yield where or "value", value


def _npy_values(path: Path) -> Iterator[tuple[str, Any]]:
    yield "array", np.load(path, mmap_mode="r", allow_pickle=False)


def _safetensors_values(path: Path) -> Iterator[tuple[str, Any]]:
    from safetensors.numpy import load_file

    for name, tensor in sorted(load_file(path).items()):
        yield f"tensor {name}", tensor


def _parquet_values(path: Path) -> Iterator[tuple[str, Any]]:
    import pandas as pd

    frame = pd.read_parquet(path)
    for column, values in frame.items():
        yield (
            f"column {column}",
            values.to_numpy(dtype=None if values.dtype.kind in "fiub" else object),
        )


def _first_byte(ours: Path, theirs: Path) -> str:
    a, b = ours.read_bytes(), theirs.read_bytes()
    if len(a) != len(b):
        return f"{len(a)} against {len(b)} bytes"
    x, y = np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8)
    i = int(np.argmax(x != y))
    return f"byte {i}: {x[i]:02x} against {y[i]:02x}"
