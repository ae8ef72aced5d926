"""The figure `scaling`: cells and law over K, IsoFLOP curves, residuals; a row per surface."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_repro.compare.drawing import Floats, drawn, logarithmic, shades
from sae_repro.compare.scaling.isoflop import budgets, curve, optimum
from sae_repro.compare.scaling.surfaces import FittedSurface
from sae_repro.compare.scaling.tables import not_identified
from sae_repro.metrics.labels import heading

DRAWN = "fvu"
POINTS = 60
"""Of a line."""
MOST_ROWS = 6


def draw_scaling(folder: Path, fitted: Sequence[FittedSurface]) -> None:
    """scaling.png, .svg and .pdf: the laws of FVU; nothing where there are none."""
    rows = [one for one in fitted if one.metric == DRAWN][:MOST_ROWS]
    if not rows:
        return
    panels: list[Callable[[Axes, FittedSurface], None]] = [_over_width, _over_second, _residuals]
    with drawn(folder, "scaling", 10.5, 2.9 * len(rows) + 0.5) as figure:
        for number, one in enumerate(rows):
            for place, panel in enumerate(panels):
                panel(_axes(figure, len(rows), 3 * number + place + 1), one)
        figure.suptitle(
            "Scaling laws: cells (points; ringed: held out) and law (lines)", fontsize=9
        )


def _axes(figure: Figure, rows: int, place: int) -> Axes:
    ax: Axes = figure.add_subplot(rows, 3, place)
    ax.tick_params(labelsize=7)
    ax.set_title(" ", fontsize=8)
    return ax


def _over_width(ax: Axes, one: FittedSurface) -> None:
    """The loss over K, a line per T or L0."""
    table, second = one.table, one.surface.second
    groups = _groups(table.t)
    x = np.geomspace(table.x.min(), table.x.max(), POINTS)
    for (value, cells), colour in zip(groups, shades(len(groups)), strict=True):
        ax.plot(x, one.fit.law.at(x, value), color=colour, lw=0.9)
        ax.plot(table.x[cells], table.means[cells], "o", ms=3, color=colour,
                label=f"{second} {value:.3g}")  # fmt: skip
    _ring(ax, one, table.x, table.means)
    ax.legend(fontsize=5.5, handletextpad=0.1)
    _named(ax, "K", heading(DRAWN), one.surface.name)


def _over_second(ax: Axes, one: FittedSurface) -> None:
    """IsoFLOP curves with the law's minima; of a law in L0, the loss over L0, a line per K."""
    table = one.table
    if one.surface.second == "L0":
        widths = sorted(set(table.x.tolist()))
        t = np.geomspace(table.t.min(), table.t.max(), POINTS)
        for width, colour in zip(widths, shades(len(widths)), strict=True):
            cells = np.flatnonzero(table.x == width)
            ax.plot(t, one.fit.law.at(width, t), color=colour, lw=0.9)
            ax.plot(table.t[cells], table.means[cells], "o", ms=3, color=colour,
                    label=f"K {width:g}")  # fmt: skip
        _ring(ax, one, table.t, table.means)
        ax.legend(fontsize=5.5, handletextpad=0.1)
        _named(ax, "L0", heading(DRAWN), "over L0")
        return
    cost, fit = one.surface.cost, one.fit.table
    computes = budgets(fit.x, fit.t, cost)
    x = np.geomspace(table.x.min(), table.x.max(), POINTS)
    for compute, colour in zip(computes, shades(len(computes)), strict=True):
        ax.plot(x, one.fit.law.at(x, compute / cost.per_token(x)), color=colour, lw=0.9)
        widths_m, losses = curve(fit.x, fit.t, fit.means[None], cost, compute)
        ax.plot(widths_m, losses[0], "o", ms=3, color=colour, label=f"C {compute:.2g}")
        if not not_identified(one):
            best, _, loss = optimum(one.fit.law, cost, compute)
            if x[0] <= best[0] <= x[-1]:
                ax.plot(best, loss, "*", ms=7, color=colour)
    if computes:
        ax.legend(fontsize=5.5, handletextpad=0.1)
    _named(ax, "K", heading(DRAWN), "at equal compute (star: the law's K*)")


def _residuals(ax: Axes, one: FittedSurface) -> None:
    table = one.table
    residual = 100 * (table.means - one.fit.law.at(table.x, table.t)) / table.scale
    groups = _groups(table.t)
    for (_, cells), colour in zip(groups, shades(len(groups)), strict=True):
        ax.plot(table.x[cells], residual[cells], "o-", ms=3, lw=0.5, color=colour)
    ax.axhline(0, color="0.5", lw=0.7)
    _ring(ax, one, table.x, residual)
    ax.set_xscale("log")
    logarithmic(ax.xaxis)
    ax.set_xlabel("K", fontsize=8)
    ax.set_ylabel("loss − law (% of the loss)", fontsize=8)
    ax.set_title("residuals", fontsize=8)


def _groups(t: Floats) -> list[tuple[float, list[int]]]:
    """(mean value, numbers of the cells) of each T, or of each L0 within a few percent."""
    order = np.argsort(t, kind="stable").tolist()
    groups: list[list[int]] = []
    for i in order:
        if groups and t[i] <= 1.1 * t[groups[-1][0]]:
            groups[-1].append(i)
        else:
            groups.append([i])
    return [(float(t[cells].mean()), cells) for cells in groups]


def _ring(ax: Axes, one: FittedSurface, x: Floats, y: Floats) -> None:
    if (i := one.held_out) is not None:
        ax.plot(x[i], y[i], "o", ms=8, mfc="none", mec="0.3", mew=0.8)


def _named(ax: Axes, x: str, y: str, title: str) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    logarithmic(ax.xaxis, ax.yaxis)
    ax.set_xlabel(x, fontsize=8)
    ax.set_ylabel(y, fontsize=8)
    ax.set_title(title, fontsize=8)
