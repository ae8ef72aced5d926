"""The numbers of a study's tables, each by what it is of, with its 95 % interval if it has one."""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.files import read_object

Place = tuple[str, str]
"""(what was measured: a cell, an architecture at an L0, a control; the metric)."""
Row = Mapping[str, str]

AT_TARGET = ("hook", "expansion", "target_l0", "architecture")
KEYS: Mapping[str, tuple[str, ...]] = {
    "cells": ("cell",),
    "consistency": ("cell",),
    "structure": ("cell",),
    "monosemantic": ("cell",),
    "judged_cells": ("cell", "judge"),
    "dead_fraction_below": ("cell",),
    "dead_fraction_never": ("cell",),
    "monosemantic_by_quantile": ("cell", "group"),
    "matched_l0": AT_TARGET,
    "verdict": AT_TARGET,
    "matched_l0_pairs": ("hook", "expansion", "target_l0", "a", "b"),
    "structure_common": ("hook", "K", "target_l0", "cell", "metric"),
    "control": ("world", "recipe"),
    "scaling": ("family", "at", "law", "metric"),
    "scaling_budgets": ("family", "at", "operations"),
    "widths": ("narrow", "wide"),
    "widths_correlations": ("reference", "cell"),
    "widths_equivalent": ("architecture", "target_l0", "training_tokens", "cell", "metric"),
}
"""The columns that say what a table's row is of. Of other tables: their first columns of text."""
ORDER = tuple(KEYS)
SKIPPED = (
    "claims", "published", "seeds", "judged", "control_trials", "control_atoms", "scaling_cells",
    "widths_curve", "widths_trees", "METRICS",
)  # fmt: skip
"""Claims are compared as claims; the others hold members of what other tables have as a mean, the
same numbers in another layout, or numbers of numbers."""
NAMES = {"dead_fraction_below": "dead_fraction_below", "dead_fraction_never": "dead_fraction_never",
         "monosemantic_by_quantile": "phi_top_minus_bottom_quantile"}  # fmt: skip
"""The metric of a table whose interval is called `low` and `high` and its value after nothing."""


@dataclass(frozen=True)
class Number:
    """A value, its interval (None where it has none), and the seeds behind it, if known."""

    value: float
    low: float | None = None
    high: float | None = None
    seeds: int | None = None


def numbers(reports: Path) -> dict[Place, Number]:
    """All numbers in the tables of `reports`, and those of metrics.json that no table has."""
    found: dict[Place, Number] = {}
    cells = rows(reports / "tables/cells.csv")
    seeds = {row.get("cell", ""): row.get("seeds", "") for row in cells}
    paths = sorted((reports / "tables").glob("*.csv"), key=_order)
    for path in [path for path in paths if path.stem not in SKIPPED]:
        for place, number in _of_table(path, seeds):
            if found.get(place, _NOTHING).low is None:
                found[place] = number
    for cell, metrics in read_object(reports / "metrics.json").items():
        if not isinstance(metrics, dict):
            continue
        row = {key: json.dumps(value) for key, value in metrics.items()}
        for metric, number in _of_row(row, count=_seeds({"cell": cell}, seeds)):
            if found.get((cell, metric), _NOTHING).low is None:
                found[cell, metric] = number
    return found


_NOTHING = Number(math.nan)


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none where there is no file. StudyError where it is damaged."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: can't be read as a table ({error})") from None
    # a row of another length has None as a key, or as values
    return [{k: v or "" for k, v in row.items() if k is not None} for row in table]


def parsed(text: str | None) -> float | None:
    """The finite number that `text` is; None for anything else."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _order(path: Path) -> tuple[int, str]:
    known = ORDER.index(path.stem) if path.stem in ORDER else len(ORDER)
    return known, path.stem


def _seeds(row: Row, of_cells: Mapping[str, str]) -> int | None:
    """How many seeds are behind a row: its own column, or as cells.csv has it of its cell."""
    cell = row.get("cell", "")
    count = parsed("1" if "/seed-" in cell else row.get("seeds") or of_cells.get(cell))
    return None if count is None else int(count)


def _of_table(path: Path, of_cells: Mapping[str, str]) -> Iterator[tuple[Place, Number]]:
    table = rows(path)
    keys = KEYS.get(path.stem, ())
    if table and not (keys and set(keys) <= table[0].keys()):
        keys = _text_columns(table)  # another table, or this one as it was in an earlier version
    seen: Counter[str] = Counter()
    for row in table:
        subject = _subject(path.stem, keys, row)
        seen[subject] += 1
        if seen[subject] > 1:  # two rows of one name are told apart by their order
            subject = f"{subject} ({seen[subject]})"
        count = _seeds(row, of_cells)
        for metric, number in _of_row(row, NAMES.get(path.stem, path.stem), count):
            if metric not in keys:
                yield (subject, metric), number


def _text_columns(table: list[dict[str, str]]) -> tuple[str, ...]:
    """The columns before the first that has numbers alone."""
    keys: list[str] = []
    for column in table[0] if table else ():
        if all(parsed(row[column]) is not None for row in table if row[column]):
            break
        keys.append(column)
    return tuple(keys)


def _subject(table: str, keys: tuple[str, ...], row: Row) -> str:
    if keys != KEYS.get(table):
        return f"{table}: {', '.join(row[key] for key in keys)}"
    if table == "structure_common":
        return f"{row['cell']}, {row['metric']} on common pairs at L0 {_short(row['target_l0'])}"
    if keys == AT_TARGET:
        target = f" at L0 {_short(row['target_l0'])}" if row.get("target_l0") else ""
        of = "control " if row.get("control") else ""
        where = f"{_short(row.get('expansion'))}× on {row.get('hook')}"
        return f"{of}{row.get('architecture')}{target} ({where})"
    if table == "matched_l0_pairs":
        where = f"{_short(row['expansion'])}× on {row['hook']}"
        return f"{row['a']} − {row['b']} at L0 {_short(row['target_l0'])} ({where})"
    if table == "control":
        return f"control {row['world']}: {row['recipe']}"
    return ", ".join(filter(None, (_short(row.get(key)) for key in keys)))


def _short(text: str | None) -> str:
    value = parsed(text)
    return text or "" if value is None else f"{value:g}"


def _of_row(row: Row, table: str = "", count: int | None = None) -> Iterator[tuple[str, Number]]:
    stems = [c.removesuffix("low") for c in row if c.endswith("_low")] + [""]
    ends = {stem + end for stem in stems if f"{stem}high" in row for end in ("low", "high")}
    previous = ""
    for column, text in row.items():
        if column == "low" and previous:
            low, high, value = (parsed(row.get(name)) for name in ("low", "high", previous))
            if None not in (low, high, value):
                assert value is not None
                yield _named(row, previous, table), Number(value, low, high, count)
        if column in ends or (value := parsed(text)) is None:
            continue
        previous = column
        base = column.removesuffix("_rate")
        stem = next((s for s in (column, base) if f"{s}_low" in row and f"{s}_high" in row), None)
        low, high = (
            (parsed(row[f"{stem}_low"]), parsed(row[f"{stem}_high"])) if stem else (None, None)
        )
        if None in (low, high):
            low = high = None
        yield column, Number(value, low, high, count)


def _named(row: Row, column: str, table: str) -> str:
    """The metric whose ends are `low` and `high`: of a column `value`, what the row is of."""
    if column == "value":
        return row.get("metric") or table
    return table if column in ("dead", "difference") else column
