"""Files that DVC's own commands show: metrics, one file per cell, and the tables of its plots.

`dvc metrics` prints a row per file and a column per number in it, so each cell has a file of its
own with few numbers. `dvc plots` draws the tables by the templates in .dvc/plots; negative controls
are no points of them. Intervals are in reports/metrics.json, all else in reports/tables.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.files import write_json, write_text
from sae_repro.metrics import names_in
from sae_repro.params.appearance import looks

POINTS = 24
"""Of a training curve: enough to see its shape, few enough for a page that holds all of them."""


def write_metric_files(folder: Path, results: Sequence[Result]) -> None:
    """`<cell>.json` of each finished cell: its headline metrics, as far as they were measured."""
    for r in results:
        if r.ok:
            measured = {name: r.metrics.get(name) for name in names_in("metrics.json")}
            write_json(
                folder / f"{r.name}.json", {k: v for k, v in measured.items() if v is not None}
            )


def write_plot_tables(folder: Path, results: Sequence[Result]) -> None:
    """cells.csv, a point per trained cell; training.csv, its curve in at most `POINTS` rows."""
    trained = [r for r in results if r.ok and not r.negative]
    colours = {name: look.colour for name, look in looks(r.architecture for r in trained).items()}
    identified = [(r, {**_identity(r), "colour": colours[r.architecture]}) for r in trained]
    _write(folder / "cells.csv", [{**known, **_numbers(r)} for r, known in identified])
    _write(
        folder / "training.csv",
        [{**known, **row} for r, known in identified for row in _curve(r)],
    )


def _identity(r: Result) -> dict[str, Any]:
    return {
        "cell": r.name,
        "architecture": r.architecture,
        "hook": r.hook,
        "expansion": r.expansion,
        "sparsity": r.sparsity,
    }


def _numbers(r: Result) -> dict[str, Any]:
    low, high = r.interval("fvu") or (None, None)
    return {
        "lambda": r.cell.lambda_ if r.cell.l0_target is None else None,
        **{name: r.metrics.get(name) for name in names_in("metrics.json")},
        "fvu_low": low,
        "fvu_high": high,
    }


def _curve(r: Result) -> Iterator[dict[str, Any]]:
    """Rows of its first finished SAE's journal, evenly spread, the first and the last among them.

    None for an imported SAE, which has no journal here.
    """
    curve = r.saes[0].curve
    if "fvu" in curve:
        chosen = np.unique(np.linspace(0, len(curve) - 1, POINTS).round().astype(int))
        for row in curve.iloc[chosen].to_dict("records"):
            yield {name: row[name] for name in ("step", "fvu", "l0", "dead")}


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    frame = pd.DataFrame(rows)
    write_text(path, frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
