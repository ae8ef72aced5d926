"""The page's interactive charts, as options of ECharts; without its script the drawings remain.

An option is data: no function, and no text but names of cells, architectures and hooks.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_repro.report.parts import read_table
from sae_repro.report.scripts import encoded
from sae_repro.report.shown import ShownSae

BINS = 24
Option = dict[str, Any]


def charts(reports: Path, saes: Sequence[ShownSae]) -> str:
    """A script's expression: the option of each chart by the section that shows it."""
    cells = read_table(reports / "tables", "cells")
    made = {
        "frontier": [*_frontiers(cells)],
        "dead": [*_dead(read_table(reports / "tables", "dead_curve"))],
        "density": [*_densities(saes)],
        "training": [*_training(read_table(reports / "plots", "training"))],
    }
    return encoded({section: options for section, options in made.items() if options})


def _frontiers(cells: pd.DataFrame) -> Iterator[Option]:
    """FVU over L0 per hook, a line per architecture and width; controls apart."""
    if cells.empty:
        return
    known = cells[(cells["negative_control"] == "no") & cells["l0"].gt(0) & cells["fvu"].gt(0)]
    for hook, group in known.groupby("hook", sort=False):
        series = [
            _line(f"{architecture} {expansion:g}×", one.sort_values("l0"), "l0", "fvu", "cell")
            for (architecture, expansion), one in group.groupby(
                ["architecture", "expansion"], sort=False
            )
        ]
        yield _option(f"FVU over L0 on {hook}", "L0", "FVU", series, log_x=True, log_y=True)


def _dead(curve: pd.DataFrame) -> Iterator[Option]:
    """The fraction of latents below each threshold, a line per cell."""
    if curve.empty:
        return
    thresholds = [column for column in curve if column not in ("cell", "latents", "never")]
    series = [
        {
            "type": "line",
            "name": row["cell"],
            "symbolSize": 4,
            "data": [[float(threshold), row[threshold]] for threshold in thresholds],
        }
        for row in curve.to_dict("records")
    ]
    yield _option("Latents below a threshold", "largest activation below", "fraction of K", series,
                  log_x=True)  # fmt: skip


def _training(steps: pd.DataFrame) -> Iterator[Option]:
    """FVU of the batch over steps, a line per cell."""
    if steps.empty:
        return
    series = [
        _line(str(cell), one, "step", "fvu", None)
        for cell, one in steps.groupby("cell", sort=False)
    ]
    yield _option("Training", "step", "FVU of the batch", series, log_y=True)


def _densities(saes: Sequence[ShownSae]) -> Iterator[Option]:
    """Latents by the logarithm of the fraction of tokens that they are active on."""
    if not saes:
        return
    series = []
    for sae in saes:
        density = sae.latents["density"].to_numpy(np.float64)
        edges = np.linspace(-6.0, 0.0, BINS + 1)
        counts, _ = np.histogram(np.log10(density[density > 0]), bins=edges)
        middle = (edges[1:] + edges[:-1]) / 2
        points = [list(point) for point in zip(middle.tolist(), counts.tolist(), strict=True)]
        series.append({"type": "line", "step": "middle", "symbol": "none", "name": sae.name,
                       "data": points})  # fmt: skip
    yield _option("Densities of alive latents", "log10 of density", "latents", series)


def _line(name: str, frame: pd.DataFrame, x: str, y: str, point: str | None) -> Option:
    names = frame[point] if point else [None] * len(frame)
    data = [
        {"value": [a, b]} if label is None else {"value": [a, b], "name": label}
        for a, b, label in zip(frame[x].tolist(), frame[y].tolist(), names, strict=True)
    ]
    return {"type": "line", "name": name, "symbolSize": 7 if point else 2, "data": data}


def _option(
    title: str,
    x: str,
    y: str,
    series: Sequence[Option],
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> Option:
    def axis(name: str, logarithmic: bool) -> Option:
        scale = {"type": "log"} if logarithmic else {"type": "value", "scale": True}
        return {**scale, "name": name, "nameLocation": "middle", "nameGap": 34}

    return {
        "title": {"text": title},
        "legend": {"type": "scroll", "top": 28},
        "grid": {"top": 72, "left": 64, "right": 24, "bottom": 88},
        "tooltip": {"trigger": "item"},
        "toolbox": {"feature": {"dataZoom": {}, "restore": {}, "saveAsImage": {"type": "svg"}}},
        "xAxis": axis(x, log_x),
        "yAxis": axis(y, log_y),
        "series": list(series),
    }
