"""The page's interactive charts, as options of ECharts; without its script the drawings remain.

An option is data: no function, and no text but names of cells, architectures and hooks. Two keys
are not ECharts' own and are read by `saeCharts` of web/: a series' `band`, [x, low, high] per
point, and an axis' `ticks`, the values that are labelled.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_repro.params.appearance import look
from sae_repro.report.parts import read_table
from sae_repro.report.shown import ShownSae

BINS = 24
CORRELATION = 0.1
"""Correlations that a map shows, either sign; smaller ones are its ground."""
DIVERGING = {"color": ["#0072B2", "#4fa3d1", "#f0a97b", "#d6452f"], "opacity": [1, 0.1, 1]}
Option = dict[str, Any]


def table_charts(reports: Path) -> dict[str, list[Option]]:
    """The charts of reports/tables, by the section that shows them."""
    cells = read_table(reports / "tables", "cells")
    return {"frontier": [*_frontiers(cells)], "dead": [*_widths(cells)]}


def latent_charts(saes: Sequence[ShownSae]) -> dict[str, list[Option]]:
    """The charts of SAEs' latents, by the section that shows them."""
    return {"density": [*_densities(saes)], "latents": [*_cosines(saes)]}


def _frontiers(cells: pd.DataFrame) -> Iterator[Option]:
    """FVU and CE recovered over L0, a line with its band per architecture; others are points."""
    if cells.empty:
        return
    known = cells[(cells["negative_control"] == "no") & cells["l0"].gt(0) & cells["fvu"].gt(0)]
    if known.empty:
        return
    hook = known["hook"].mode()[0]
    known = known[known["hook"] == hook]
    lengths = [c for c in ("expansion", "training_tokens") if known[c].notna().any()]
    usual = known[known["target_l0"].notna()]
    usual = known if usual.empty else usual
    for column in lengths:
        usual = usual[usual[column] == usual[column].mode()[0]]
    for column, text in (("fvu", "FVU ↓"), ("ce_recovered_zero", "CE recovered ↑")):
        if column not in known or not usual[column].notna().any():
            continue
        others = known[~known["cell"].isin(usual["cell"]) & known[column].notna()]
        series = [
            _line(str(name), one.sort_values("l0", kind="stable"), "l0", column)
            for name, one in usual[usual[column].notna()].groupby("architecture", sort=False)
        ]
        grey = _line("other widths and lengths", others, "l0", column)
        series += [{**grey, "type": "scatter", "color": "#999999"}] if len(others) else []
        for one in series[-1:] if len(others) else []:
            one.pop("band", None)
        log_y = column == "fvu"
        expansion = usual["expansion"].iloc[0]
        title = f"{text[:-2]} over L0: {hook}, {expansion:g}×"
        yield _option(title, "L0", text, series, log_x=True, log_y=log_y)


def _widths(cells: pd.DataFrame) -> Iterator[Option]:
    """Latents that never fire over expansion, a line per series of cells alike but for width."""
    if cells.empty or "dead_fraction_never" not in cells:
        return
    known = cells[(cells["negative_control"] == "no") & cells["dead_fraction_never"].notna()]
    alike = ["hook", "architecture", "k", "lambda", "target_l0", "training_tokens"]
    series: list[Option] = []
    for (_, architecture, k, weight, *_), one in known.groupby(alike, sort=False, dropna=False):
        if one["expansion"].nunique() < 3:
            continue
        name = f"{architecture}, k = {k:g}" if k == k else f"{architecture}, λ = {weight:g}"
        one = one.sort_values("expansion", kind="stable").drop_duplicates("expansion")
        line = _line(name, one, "expansion", "dead_fraction_never", str(architecture))
        series.append({**line, "lineStyle": {"type": ("solid", "dashed")[len(series) % 2]}})
    if series:
        yield _option("Latents that never fire, over width", "K / D", "fraction of K ↓", series,
                      log_x=True)  # fmt: skip


def _densities(saes: Sequence[ShownSae]) -> Iterator[Option]:
    """Latents by the logarithm of the fraction of tokens that they are active on."""
    densities = {}
    for sae in saes:
        density = sae.latents["density"].to_numpy(np.float64)
        densities[sae.name] = np.log10(density[density > 0])
    unit = saes[0].unit if saes else "tokens"
    text = f"log₁₀ of the fraction of {unit}"
    yield from _histogram("Densities of the explorer's latents", text, densities, (-6.0, 0.0))


def _cosines(saes: Sequence[ShownSae]) -> Iterator[Option]:
    """Latents by the cosine of their atom with the nearest other one."""
    cosines = {}
    for sae in saes:
        frame = sae.table("dictionary")
        if frame is not None and frame["decoder_max_cosine"].notna().any():
            cosines[sae.name] = frame["decoder_max_cosine"].dropna().to_numpy(np.float64)
    text = "cosine with the nearest other atom"
    yield from _histogram("Similarity of atoms", text, cosines, (0.0, 1.0))


def _histogram(
    title: str, x: str, values: dict[str, npt.NDArray[np.float64]], over: tuple[float, float]
) -> Iterator[Option]:
    edges = np.linspace(*over, BINS + 1)
    middle = ((edges[1:] + edges[:-1]) / 2).tolist()
    series = []
    for name, one in values.items():
        counts, _ = np.histogram(one, bins=edges)
        points = [list(point) for point in zip(middle, counts.tolist(), strict=True)]
        series.append({"type": "line", "step": "middle", "symbol": "none", "name": name,
                       "areaStyle": {"opacity": 0.12}, "data": points})  # fmt: skip
    if series:
        yield _option(title, x, "latents", series)


def heat_map(
    title: str, names: Sequence[int], r: npt.NDArray[np.float64], clusters: Sequence[int]
) -> Option:
    """A symmetric matrix of correlations of latents `names`, `clusters` of that many framed."""
    row, column = np.nonzero(np.abs(r) >= CORRELATION)
    points = [
        [i, j, round(value, 2)]
        for i, j, value in zip(row.tolist(), column.tolist(), r[row, column].tolist(), strict=True)
        if i != j
    ]
    ends = np.cumsum(clusters).tolist()
    frames = [
        [{"coord": [end - size, end - size]}, {"coord": [end - 1, end - 1]}]
        for end, size in zip(ends, clusters, strict=True)
    ]
    labels = [str(name) for name in names]
    hidden = {"axisTick": {"show": False}, "axisLabel": {"show": False}}
    axis = {"type": "category", "data": labels, **hidden}
    return {
        "title": {"text": title},
        "grid": {"top": 72, "left": 16, "right": 16, "bottom": 16},
        "tooltip": {},
        "square": True,
        "visualMap": {"min": -1, "max": 1, "dimension": 2, "orient": "horizontal", "top": 26,
                      "left": "center", "itemWidth": 10, "itemHeight": 120, "seriesIndex": 0,
                      "text": ["r = 1", "−1"],
                      "inRange": DIVERGING},
        "xAxis": axis,
        "yAxis": {**axis, "inverse": True},
        "series": [{"type": "heatmap", "data": points, "progressive": 0,
                    "markArea": {"silent": True, "data": frames,
                                 "itemStyle": {"color": "transparent", "borderWidth": 1,
                                               "borderColor": "#888888"}}}],
    }  # fmt: skip


def _line(
    name: str, frame: pd.DataFrame, x: str, y: str, architecture: str | None = None
) -> Option:
    """A point per cell, named by it, with the band of its intervals."""
    rows = frame.to_dict("records")
    data = [{"value": [row[x], row[y]], "name": row["cell"]} for row in rows]
    band = [[row[x], row[f"{y}_low"], row[f"{y}_high"]] for row in rows if f"{y}_low" in row]
    series = {"type": "line", "name": name, "symbolSize": 7, "data": data}
    series["color"] = look(architecture or name).colour
    known = [point for point in band if all(value == value for value in point)]
    return {**series, "band": known} if len(known) > 1 else series


def _option(
    title: str,
    x: str,
    y: str,
    series: Sequence[Option],
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> Option:
    """A chart over two axes; logarithmic ones end beside the data."""
    points = [p["value"] if isinstance(p, dict) else p for one in series for p in one["data"]]
    bands = [(p[0], bound) for one in series for p in one.get("band", ()) for bound in p[1:]]

    def axis(name: str, values: list[float], logarithmic: bool, gap: int) -> Option:
        named = {"name": name, "nameLocation": "middle", "nameGap": gap}
        if not logarithmic:
            return {"type": "value", "scale": True, **named}
        positive = [value for value in values if value > 0]
        low, high = min(positive) / 1.15, max(positive) * 1.15
        return {"type": "log", "min": low, "max": high, "ticks": _ticks(low, high), **named}

    return {
        "title": {"text": title},
        "legend": {"type": "scroll", "top": 26},
        "grid": {"top": 64, "left": 64, "right": 20, "bottom": 52},
        "tooltip": {"trigger": "item"},
        "xAxis": axis(x, [p[0] for p in points], log_x, 28),
        "yAxis": axis(y, [p[1] for p in [*points, *bands]], log_y, 48),
        "series": list(series),
    }


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between `low` and `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    return [tick for tick in ticks if low <= tick <= high]
