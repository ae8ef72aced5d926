"""Comparison of two folders of results, file by file: bit for bit, else number by number."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.contents import CONTENTS
from sae_repro.errors import StudyError
from sae_repro.files import sha256_file
from sae_repro.verify.values import READERS, Printed, Values, text_values
from sae_repro.verify.verdict import Difference, Kind, Verdict

PLACES = ("artifacts", "reports")
MACHINES = "reports/machines.csv"
"""Says on which machines the study was made: of no stage's making, and not compared."""
COSTS = "reports/costs.csv"
"""What training took on the machine that did it: as MACHINES."""
BENCHMARKS = "reports/benchmarks"
"""Folder of timings: as MACHINES."""
ASIDE = (MACHINES, COSTS, BENCHMARKS)
PICTURES = (".svg", ".png", ".pdf")
SMALL = 1e-6
"""Numbers are of order one: of two smaller than this, the difference is taken relative to it."""


def verify(ours: Path, theirs: Path) -> Verdict:
    """Compare artifacts/ and reports/ of two study folders; StudyError where one has none."""
    names = [_listing(folder) for folder in (ours, theirs)]
    return compare(ours, theirs, *names)


def compare(ours: Path, theirs: Path, our_names: set[str], their_names: set[str]) -> Verdict:
    """Compare the named files of two folders; one that only one of them has is a difference."""
    verdict = Verdict()
    for name in sorted(our_names | their_names):
        for folder, names in ((ours, our_names), (theirs, their_names)):
            if name not in names:
                verdict.differences.append(Difference(name, f"missing in {folder}"))
        verdict.files += 1
        if name in our_names and name in their_names:
            verdict.size += (ours / name).stat().st_size
            difference = _difference(name, ours / name, theirs / name)
            if difference is not None:
                verdict.differences.append(difference)
    # contents.json has the hashes of the other files: it tells something where they are the same
    others = [d for d in verdict.differences if Path(d.file).name != CONTENTS]
    verdict.differences = others or verdict.differences
    return verdict


def _listing(folder: Path) -> set[str]:
    names = {name for place in PLACES for name in files_below(folder, place)}
    if not names:
        raise StudyError(f"{folder}: no artifacts or reports there; run `dvc repro` first")
    return names


def files_below(folder: Path, place: str) -> set[str]:
    """The results at or below `place`, a path in `folder`, as paths in it."""
    start = folder / place
    paths = [start] if start.is_file() else start.rglob("*")
    names = {
        path.relative_to(folder).as_posix()
        for path in paths
        if path.is_file() and path.name != ".gitignore"
    }
    return {name for name in names if not any(PurePosixPath(name).is_relative_to(p) for p in ASIDE)}


def _difference(name: str, ours: Path, theirs: Path) -> Difference | None:
    try:
        if sha256_file(ours) == sha256_file(theirs):
            return None
        return _compare(name, ours, theirs)
    except Exception as error:  # a damaged file raises whatever its reader happens to hit
        reason = " ".join(str(error).split()) or type(error).__name__
        return Difference(name, f"can't be read: {reason}")


def _compare(name: str, ours: Path, theirs: Path) -> Difference:
    reader = READERS.get(ours.suffix)
    part = None
    if reader is not None:
        part = _by_value(_by_place(reader(ours)), _by_place(reader(theirs)))
    if part is None:
        part = Part(_first_byte(ours, theirs), None, 0)
    kind: Kind = "printed" if reader is text_values else "data"
    if ours.suffix in PICTURES:
        kind = "picture"
    return Difference(name, part.first, part.relative, part.numbers, part.largest, kind)


def _by_place(values: Values) -> dict[str, Any]:
    """The values by their place; of two with one name, a number is added to the second's."""
    places: dict[str, Any] = {}
    for where, value in values:
        place, number = where, 2
        while place in places:
            place, number = f"{where} ({number})", number + 1
        places[place] = value
    return places


@dataclass(frozen=True)
class Part:
    """How two values differ: the first difference, all that are numbers, and the largest."""

    first: str
    relative: float | None
    """None where more than numbers differs."""
    numbers: int = 1
    largest: str = ""


def _by_value(ours: dict[str, Any], theirs: dict[str, Any]) -> Part | None:
    """The difference of two files' values; None where all are equal."""
    if list(ours) != list(theirs):
        others = sorted(set(ours) ^ set(theirs)) or ["another order"]
        return Part(f"other columns, keys or rows: {', '.join(others[:3])}", None, 0)
    return _sum(ours, zip(ours.values(), theirs.values(), strict=True))


def _sum(places: Iterable[str], pairs: Iterable[tuple[Any, Any]]) -> Part | None:
    """The differences of several pairs of values as one."""
    found = [
        (place, part)
        for place, (a, b) in zip(places, pairs, strict=True)
        if (part := _difference_of(a, b)) is not None
    ]
    if not found:
        return None
    sizes = [part.relative for _, part in found if part.relative is not None]
    place, worst = max(
        found, key=lambda pair: -1.0 if pair[1].relative is None else pair[1].relative
    )
    return Part(
        f"{found[0][0]}: {found[0][1].first}",
        max(sizes) if len(sizes) == len(found) else None,
        sum(part.numbers for _, part in found),
        f"{place}: {worst.largest or worst.first}" if sizes else "",
    )


def _difference_of(a: Any, b: Any) -> Part | None:
    """The difference of two values; None where they are equal, as NaN and NaN are."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return _arrays(np.asarray(a), np.asarray(b))
    if isinstance(a, Printed) and isinstance(b, Printed):
        return None if a.text == b.text else Part(f"{a} against {b}", _printed(a, b))
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return _sum((f"[{i}]" for i in range(len(a))), zip(a, b, strict=True))
    if _is_number(a) and _is_number(b):
        if a == b or (math.isnan(a) and math.isnan(b)):
            return None
        return Part(f"{a} against {b}", _relative(float(a), float(b)))
    if type(a) is type(b) and bool(a == b):
        return None
    return Part(f"{a} against {b}", None, 0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _relative(x: float, y: float) -> float | None:
    """The relative difference of two finite numbers; None where one is not."""
    if not (math.isfinite(x) and math.isfinite(y)):
        return None
    return abs(x - y) / max(abs(x), abs(y), SMALL)


def _printed(a: Printed, b: Printed) -> float | None:
    """The least by which two numbers differ that were printed so, relative.

    A number near the middle between two is rounded up or down by a difference in its last bit.
    """
    if not (math.isfinite(a.value) and math.isfinite(b.value)):
        return None
    least = abs(a.value - b.value) - min(a.unit, b.unit)
    scale = max(abs(a.value), abs(b.value), SMALL)
    # of 0.1 + 0.2's kind: units that binary numbers don't have
    return 0.0 if least <= 1e-12 * scale else least / scale


def _arrays(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Part | None:
    if a.shape != b.shape or a.dtype != b.dtype:
        return Part(f"{a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}", None, 0)
    if a.dtype.kind not in "fiub":
        rows = (f"row {n}" for n in range(a.size))
        return _sum(rows, zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    differs = (a != b) & ~((a != a) & (b != b))
    if not differs.any():
        return None
    x, y = a[differs].astype(np.float64), b[differs].astype(np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    apart = np.abs(np.where(finite, x, 0.0) - np.where(finite, y, 0.0))
    # relative to the array's own scale: single entries near zero are no measure, but whole numbers
    # are counts and names, exact by themselves
    scale = np.maximum(np.abs(x), np.abs(y)) if a.dtype.kind in "iub" else _scale(a, b)
    first = np.unravel_index(int(np.argmax(differs)), a.shape)
    place = ", ".join(str(int(n)) for n in first)
    return Part(
        f"[{place}]: {a[first]!s} against {b[first]!s} ({int(differs.sum())} of {a.size} differ, "
        f"by {'at most' if finite.all() else 'NaN or infinity, else'} {apart.max():.3g})",
        float((apart / scale).max()) if finite.all() else None,
        int(differs.sum()),
    )


def _scale(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """The largest finite magnitude in two arrays, and at least 1e-12."""
    sizes = [np.abs(part[np.isfinite(part)]).max(initial=0.0) for part in (a, b)]
    return max(*map(float, sizes), 1e-12)


def _first_byte(ours: Path, theirs: Path) -> str:
    a, b = ours.read_bytes(), theirs.read_bytes()
    if len(a) != len(b):
        return f"{len(a)} against {len(b)} bytes"
    x, y = np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8)
    i = int(np.argmax(x != y))
    return f"byte {i}: {x[i]:02x} against {y[i]:02x}"
