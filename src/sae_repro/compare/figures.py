"""Figures of the cells: frontier, dead latents, firing densities, training curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from sae_repro.compare.collect import Result
from sae_repro.compare.drawing import (
    constants,
    dodged,
    drawn,
    handle,
    logarithmic,
    room_between,
    shades,
    without_panel,
)
from sae_repro.compare.frontier import frontiers, on_lines
from sae_repro.compare.grid import grid_of
from sae_repro.compare.tables import measured_on
from sae_repro.metrics.labels import heading
from sae_repro.params.appearance import Look, looks

LEAST_ON_A_HOOK = 2
"""Cells for a panel of a frontier: one alone is a row of the table."""
DEAD = {
    "dead_fraction_below": "never above the threshold",
    "dead_fraction_never": "never fires",
}
MARKERS = "osD^vPXh*<>p"
DENSITY_BINS = np.linspace(-6, 0, 37)


def write_figures(folder: Path, results: Sequence[Result], targets: Sequence[float] = ()) -> None:
    """All figures of the finished cells; none without one. `targets`: L0 that tables compare at."""
    finished = [r for r in results if r.ok]
    if not finished:
        return
    looks_of = looks(r.architecture for r in results)
    trained = [r for r in finished if not r.negative]
    if trained:
        frontier(folder, trained, targets, looks_of)
    if grid_of(finished):
        dead_fraction(folder, finished)
    density(folder, finished, looks_of)
    training_curves(folder, trained)


def frontier(
    folder: Path, results: Sequence[Result], targets: Sequence[float], looks_of: Mapping[str, Look]
) -> None:
    """Held-out FVU over L0 with 95 % intervals: down and to the left is better.

    The lines are those that the table of matched L0 reads.
    """
    per_hook: dict[str, list[Result]] = {}
    for r in results:
        per_hook.setdefault(r.hook, []).append(r)
    alone = [r for of in per_hook.values() if len(of) < LEAST_ON_A_HOOK for r in of]
    panels = {hook: of for hook, of in per_hook.items() if len(of) >= LEAST_ON_A_HOOK} or per_hook
    sizes = {x: 3.5 + 1.6 * i for i, x in enumerate(sorted({r.expansion for r in results}))}
    with drawn(folder, "frontier", 5.2 * len(panels) + 2.2, 4.4) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for ax, (hook, of_hook) in zip(axes, panels.items(), strict=True):
            for target in targets:
                ax.axvline(target, color="0.75", lw=0.8, ls=":", zorder=0)
            _frontiers(ax, of_hook, targets, looks_of, sizes)
            ax.set(xscale="log", yscale="log", xlabel=heading("l0"), title=hook)
            logarithmic(ax.xaxis, ax.yaxis)
        axes[0].set(ylabel=f"{heading('fvu')}, fraction of variance unexplained")
        shown = {r.architecture for of in panels.values() for r in of}
        marks = [handle(row) for row in looks_of.values() if row.label in shown]
        if len(sizes) > 1:
            marks += [Line2D([], [], marker="o", ls="", color="0.5", ms=ms, label=f"K / D = {x:g}")
                      for x, ms in sizes.items()]  # fmt: skip
        if targets:
            marks.append(Line2D([], [], color="0.75", lw=0.8, ls=":", label="target L0 of tables"))
        figure.legend(handles=marks, loc="outside right center")
        without = f"\nnot drawn, alone on its hook: {', '.join(r.name for r in alone)}"
        figure.suptitle(
            f"Sparsity against reconstruction, {measured_on(results)}"
            + (without if alone and panels is not per_hook else ""),
            fontsize=10,
        )


def _frontiers(
    ax: Axes,
    results: Sequence[Result],
    targets: Sequence[float],
    looks_of: Mapping[str, Look],
    sizes: Mapping[float, float],
) -> None:
    for f in frontiers(results):
        look = looks_of[f.architecture]
        ax.plot(*f.drawn(targets), color=look.colour, lw=0.9, alpha=0.7, zorder=2)
    for r in on_lines(results):
        look = looks_of[r.architecture]
        l0, fvu = r.metrics["l0"] or 0, r.metrics["fvu"] or 0
        ax.errorbar(
            [l0], [fvu], xerr=_error(r, "l0"), yerr=_error(r, "fvu"), color=look.colour,
            marker=look.marker, ms=sizes[r.expansion], mec="white", mew=0.4, elinewidth=1,
            ls="", zorder=3,
        )  # fmt: skip


def _error(r: Result, metric: str) -> np.ndarray | None:
    """The interval of a metric as lengths below and above it; None where it has none."""
    bounds, value = r.interval(metric), r.metrics[metric]
    if bounds is None or value is None:
        return None
    return np.clip([[value - bounds[0]], [bounds[1] - value]], 0, None)


def dead_fraction(folder: Path, results: Sequence[Result]) -> None:
    """Dead latents of the vanilla grid with Wilson intervals: a panel per definition and revival.

    Of λ and expansion, the one with more values is the axis and the other one the colour, so that
    many of either stay readable.
    """
    grid = grid_of(results)
    by_lambda = len({lam for _, lam, _ in grid}) > len({x for _, _, x in grid})
    blocks = sorted({resampling for resampling, _, _ in grid})
    panels = [(metric, resampling) for metric in DEAD for resampling in blocks]
    with drawn(folder, "dead_fraction", 3.4 * len(blocks) + 1.6, 5.8) as figure:
        axes = figure.subplots(len(DEAD), len(blocks), squeeze=False, sharey="row", sharex=True)
        for ax, (metric, resampling) in zip(axes.ravel(), panels, strict=True):
            block = "resampling" if resampling else "no resampling"
            _dead_panel(ax, grid, metric, resampling, by_lambda)
            ax.set_title(f"dead: {DEAD[metric]}, {block}", fontsize=8)
        for ax in axes[:, 0]:
            ax.set(ylabel="dead latents (fraction of K) ↓")
        for ax in axes[-1]:
            ax.set(xlabel="λ" if by_lambda else "expansion K / D")
        handles = {label: one for ax in axes.ravel()
                   for one, label in zip(*ax.get_legend_handles_labels(), strict=True)}  # fmt: skip
        figure.legend(handles.values(), handles.keys(), loc="outside right center")
        figure.suptitle(
            f"Dead latents of the vanilla grid (95 % Wilson), {measured_on(results)}\n"
            f"{next(iter(grid.values())).hook}",
            fontsize=10,
        )


def _dead_panel(
    ax: Axes,
    grid: Mapping[tuple[bool, float, float], Result],
    metric: str,
    resampling: bool,
    by_lambda: bool,
) -> None:
    def key(lam: float, x: float) -> tuple[float, float]:
        return (lam, x) if by_lambda else (x, lam)

    names = sorted({key(lam, x)[1] for _, lam, x in grid})
    ticks = sorted({key(lam, x)[0] for _, lam, x in grid})
    room = room_between(ticks)
    for n, (name, colour) in enumerate(zip(names, shades(len(names)), strict=True)):
        line = sorted(
            (key(lam, x)[0], r) for (s, lam, x), r in grid.items()
            if s == resampling and key(lam, x)[1] == name
        )  # fmt: skip
        if not line:
            continue
        places, cells = zip(*line, strict=True)
        y = np.array([r.metrics[metric] for r in cells], dtype=np.float64)
        bounds = np.array([r.interval(metric) for r in cells], dtype=np.float64)
        ax.errorbar(
            dodged(places, n, len(names), room), y,
            yerr=np.clip(np.abs(bounds.T - y), 0, None), color=colour, capsize=2, lw=1, ms=4,
            marker=MARKERS[n % len(MARKERS)], label=f"{'K / D' if by_lambda else 'λ'} = {name:g}",
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    for marks in ax.lines:
        marks.set_clip_on(False)  # a point at 0 is a whole one
    if not by_lambda or len(ticks) <= 8:
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks], rotation=45 if by_lambda else 0)
        ax.xaxis.set_minor_locator(NullLocator())


def density(folder: Path, results: Sequence[Result], looks_of: Mapping[str, Look]) -> None:
    """Histograms of firing densities, one per cell (all its seeds); never-firing ones counted."""
    latents = {r.name: pd.concat([sae.latents for sae in r.saes])["log10_density"] for r in results}
    logs = {name: np.clip(column.dropna(), -6, 0) for name, column in latents.items()}
    flat = {name for name, values in logs.items()
            if np.count_nonzero(np.histogram(values, DENSITY_BINS)[0]) < 2}  # fmt: skip
    shown = [r for r in results if r.name not in flat] or list(results)
    several = len({r.hook for r in shown}) > 1
    columns = min(5, len(shown))
    rows = -(-len(shown) // columns)
    with drawn(folder, "density", 2.2 * columns, (1.6 if several else 1.5) * rows + 0.7) as figure:
        axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        for ax in axes[len(shown) :]:
            ax.set_visible(False)
        for ax, r in zip(axes, shown, strict=False):
            ax.hist(logs[r.name], bins=DENSITY_BINS, color=looks_of[r.architecture].colour)
            silent, of = int(latents[r.name].isna().sum()), len(latents[r.name])
            hook = f"\n{r.hook}" if several else ""
            ax.set_title(f"{r.name}{hook}\n{silent:,} of {of:,} never fire", fontsize=6.5)
            ax.tick_params(labelsize=6.5)
        figure.supxlabel("log₁₀ of the fraction of tokens on which a latent fires", fontsize=9)
        figure.supylabel("latents", fontsize=9)
        left_out = ", ".join(sorted(flat)) if len(shown) < len(results) else ""
        figure.suptitle(
            f"Firing densities, {measured_on(results)}"
            + (f"\nnot drawn, all latents in one bin: {left_out}" if left_out else ""),
            fontsize=10,
        )


CURVES = {
    "fvu": "FVU of the batch ↓",
    "l0": "L0 of the batch (latents per token)",
    "dead": "dead latents: silent for dead_tokens ↓",
}


def training_curves(folder: Path, results: Sequence[Result]) -> None:
    """FVU, L0 and dead latents over the steps, one row of panels per architecture and hook."""
    trained = [r for r in results if r.cell.import_ is None]
    groups: dict[tuple[str, str], list[Result]] = {}
    for r in trained:
        groups.setdefault((r.architecture, r.hook), []).append(r)
    if not groups:
        return
    several = len({hook for _, hook in groups}) > 1
    with drawn(folder, "training_curves", 9.6, 2.0 * len(groups) + 0.6) as figure:
        axes = figure.subplots(len(groups), len(CURVES), squeeze=False, sharex=True)
        for row, ((architecture, hook), cells) in zip(axes, groups.items(), strict=True):
            for ax, column in zip(row, CURVES, strict=True):
                _curves(ax, cells, column)
                ax.tick_params(labelsize=7)
            title = f"{architecture}, {hook}" if several else architecture
            row[0].set_title(title, fontsize=8, loc="left", fontweight="bold")
            handles = [Line2D([], [], color=colour, label=f"{r.expansion:g}×, {r.sparsity}")
                       for r, colour in zip(cells, shades(len(cells)), strict=True)]  # fmt: skip
            row[-1].legend(handles=handles, fontsize=6, loc="center left",
                           bbox_to_anchor=(1.02, 0.5))  # fmt: skip
        for ax in axes[-1]:
            ax.set_xlabel("step")
        figure.suptitle("Training curves (training batches)", fontsize=10)


def _curves(ax: Axes, cells: Sequence[Result], column: str) -> None:
    curves = [[sae.curve for sae in r.saes if column in sae.curve] for r in cells]
    values = constants(list(curve[column]) for of_cell in curves for curve in of_cell)
    if values is not None:
        without_panel(ax, f"{CURVES[column]}:\nall {', '.join(f'{v:g}' for v in values)}")
        return
    for of_cell, colour in zip(curves, shades(len(cells)), strict=True):
        for curve in of_cell:
            ax.plot(curve["step"], curve[column], color=colour, lw=0.9)
    ax.set_ylabel(CURVES[column].replace(": ", ":\n").replace(" (", "\n("), fontsize=6.5)
    if column != "dead":
        ax.set_yscale("log")
        logarithmic(ax.yaxis)
