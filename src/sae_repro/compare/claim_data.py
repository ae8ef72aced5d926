"""Data of claims: the tables of SAEs that `compare` writes and git keeps."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_repro.errors import StudyError
from sae_repro.files import remedy
from sae_repro.metrics import find
from sae_repro.params.claims import Axis, matching

Floats = npt.NDArray[np.float64]
CHOICES = ("architecture", "hook", "k", "lambda", "target_l0", "expansion", "training_tokens")
"""What the cells of a series share, but for its axis."""
DOCUMENTS = "bootstrap over documents"
WILSON = "Wilson"


class UndecidedError(Exception):
    """Why the tables give no number."""


@dataclass(frozen=True)
class Tables:
    """The rows of all SAEs by their cell, trained ones' and the controls', in the tables' order."""

    saes: Mapping[str, Sequence[Mapping[str, Any]]]
    wholes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The rows of consistency.csv by cell: what is measured of its seeds together."""

    @cached_property
    def cells(self) -> list[str]:
        """Names of all cells; a control's is `world: recipe`."""
        return list(self.saes)

    def group(self, patterns: Sequence[str]) -> list[str]:
        """The cells that the patterns name; UndecidedError where there is none."""
        found = matching(patterns, self.cells)
        if not found:
            raise UndecidedError(f"no cell {', '.join(patterns)} in this study")
        return found

    def values(self, cell: str, metric: str) -> Floats:
        """The metric of each SAE of the cell [n]; UndecidedError where one lacks it."""
        values = [_number(row.get(metric)) for row in self.saes[cell]]
        if not values or not np.isfinite(values).all():
            raise UndecidedError(f"{cell} has no {metric}")
        return np.array(values)

    def by_seed(self, cells: Sequence[str], metric: str, *, logs: bool = False) -> Floats:
        """[cells, seeds]; UndecidedError where a cell has one seed."""
        rows = [self.values(cell, metric) for cell in cells]
        seeds = min(map(len, rows))
        if seeds < 2:
            alone = [cell for cell, row in zip(cells, rows, strict=True) if len(row) < 2]
            raise UndecidedError(f"one seed: {', '.join(alone)}")
        values = np.array([row[:seeds] for row in rows])
        return _logs(values, metric) if logs else values

    def means(self, cells: Sequence[str], metric: str, *, logs: bool = False) -> Floats:
        """The mean over its SAEs of each cell [cells]."""
        means = np.array([self.values(cell, metric).mean() for cell in cells])
        return _logs(means, metric) if logs else means

    def documents_half(self, cell: str, metric: str, *, logs: bool = False) -> float:
        """Half of the interval over documents, which all cells share, mean over its SAEs.

        0 where the metric's interval is over something else: latents are drawn anew by each seed.
        """
        row = find(metric)
        if row is None or row.interval != DOCUMENTS:
            return 0.0
        halves = np.array([_half(sae, metric, logs=logs) for sae in self.saes[cell]])
        finite = halves[np.isfinite(halves)]
        return float(finite.mean()) if len(finite) else 0.0

    def most_of_none(self, cells: Sequence[str], metric: str) -> float | None:
        """How large a fraction may be that is 0 in every SAE of `cells`: mean of its upper ends.

        Each SAE's own, not that of all their latents as one sample. None where the fraction is not
        0 everywhere, or the metric has no interval that holds at 0 (Wilson's does).
        """
        row = find(metric)
        if row is None or not row.interval.startswith(WILSON):
            return None
        if any(self.values(cell, metric).any() for cell in cells):
            return None
        highs = [_number(sae.get(f"{metric}_high")) for cell in cells for sae in self.saes[cell]]
        return float(np.mean(highs)) if np.isfinite(highs).all() else None

    def of_seeds(self, cells: Sequence[str], metric: str) -> bool:
        """Whether the metric is one of a cell's seeds together, as consistency.csv has them."""
        return all(metric in self.wholes.get(cell, {}) for cell in cells)

    def whole(self, cells: Sequence[str], metric: str, *, logs: bool) -> tuple[Floats, Floats, int]:
        """Of such a metric: values and half intervals [cells], the fewest seeds of a cell."""
        rows = [self.wholes[cell] for cell in cells]
        values = np.array([_number(row[metric]) for row in rows])
        halves = np.array([_half(row, metric, logs=logs) for row in rows])
        if not (np.isfinite(values) & np.isfinite(halves)).all():
            raise UndecidedError(f"{metric} has no interval in {', '.join(cells)}")
        seeds = min(int(row["seeds"]) for row in rows)
        return _logs(values, metric) if logs else values, halves, seeds

    def axis(self, cell: str, axis: Axis) -> float:
        """Where the cell lies on the axis; UndecidedError where it has no place on it."""
        values = self.values(cell, axis)
        return float(values.mean())

    def series(self, cells: Sequence[str], axis: Axis) -> list[list[str]]:
        """The cells by what they share beside the axis; a lone cell is no series."""
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        if failed := [cell for cell in cells if not self.saes[cell]]:
            raise UndecidedError(f"no result: {', '.join(failed)}")
        for cell in cells:
            row = self.saes[cell][0]
            shared = tuple(str(row.get(name)) for name in CHOICES if name != axis)
            groups[shared].append(cell)
        return [group for group in groups.values() if len(group) > 1]


def read_tables(folder: Path) -> Tables:
    """The tables in `folder` (reports/tables); StudyError where they are not there."""
    cells, seeds = _read(folder / "cells.csv", needed=True), _read(folder / "seeds.csv")
    judged = _read(folder / "judged_cells.csv")
    by_sae = judged.set_index("cell").to_dict("index") if len(judged) else {}
    single = cells[cells["seeds"] == 1] if "seeds" in cells else cells
    rows = [*_records(single), *_records(seeds)]
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in cells["cell"]}
    for row in rows:
        name = str(row["cell"])
        more = {f"judged_{key}": value for key, value in by_sae.get(name, {}).items()}
        if row["status"] == "ok":
            found.setdefault(name.partition("/")[0], []).append({**row, **more})
    for trial in _records(_read(folder / "control_trials.csv")):
        if trial["status"] == "ok":
            found.setdefault(f"{trial['world']}: {trial['recipe']}", []).append(trial)
    together = {str(row["cell"]): row for row in _records(_read(folder / "consistency.csv"))}
    return Tables(found, together)


def _read(path: Path, *, needed: bool = False) -> pd.DataFrame:
    if not path.is_file():
        if needed:
            raise StudyError(f"{path}: missing; {remedy(path)}")
        return pd.DataFrame()
    text = path.read_text(encoding="utf-8")
    try:
        frame = pd.read_csv(StringIO(text)) if text.strip() else pd.DataFrame()
    except (pd.errors.ParserError, ValueError) as error:
        raise StudyError(f"{path}: no table ({error}); {remedy(path)}") from None
    lacking = [name for name in ("cell", "status") if needed and name not in frame]
    if lacking:
        raise StudyError(f"{path}: no column {', '.join(lacking)}; {remedy(path)}")
    return frame


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def _half(row: Mapping[str, Any], metric: str, *, logs: bool) -> float:
    low, high = (_number(row.get(f"{metric}_{end}")) for end in ("low", "high"))
    return (high - low) / 2 / (_number(row[metric]) if logs else 1.0)


def _logs(values: Floats, metric: str) -> Floats:
    if not (values > 0).all():
        raise UndecidedError(f"{metric} is not above 0 everywhere, so that it has no ratio")
    logs: Floats = np.log(values)
    return logs
