"""Training curves of what varies: FVU everywhere, L0 and dead latents where they move."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from sae_repro.compare.collect import Result
from sae_repro.compare.drawing import Floats, apart, constants, drawn, logarithmic, shades
from sae_repro.numerics.seeds import LEAST_SEEDS
from sae_repro.params.appearance import Look, looks

CURVES = {
    "fvu": "FVU of the batch ↓",
    "l0": "L0 of the batch",
    "dead": "dead latents\n(fraction of K) ↓",
}
COLUMNS = 4
LABELLED = 4
"""Lines that are named at their ends; of more, the first and the last."""
LEAST_DEAD = 0.01
"""Of K: fewer dead latents than that at all times have no panel."""
MOST_FVU = 2.0
"""Above it, in the first steps, no curve tells from another."""


def write_curves(folder: Path, results: Sequence[Result]) -> None:
    """training_curves of the finished cells that are no controls; nothing without one."""
    trained = [r for r in results if r.ok and not r.negative]
    training_curves(folder, trained, looks(r.architecture for r in results))


def training_curves(folder: Path, results: Sequence[Result], looks_of: Mapping[str, Look]) -> None:
    """A panel per architecture of the first hook and curve that varies; sparsest cells darkest.

    Where an architecture has cells with several seeds, those alone, every seed a line.
    """
    trained = [r for r in results if r.cell.import_ is None]
    groups: dict[str, list[Result]] = {}
    for r in trained:
        if r.hook == trained[0].hook:
            groups.setdefault(r.architecture, []).append(r)
    panels = {
        column: [(name, cells) for name, of in groups.items()
                 if _varies(cells := _with_most_seeds(of), column)]
        for column in CURVES
    }  # fmt: skip
    rows = {column: -(-len(of) // COLUMNS) for column, of in panels.items() if of}
    if not rows:
        return
    columns = min(COLUMNS, max(map(len, panels.values())))
    with drawn(folder, "training_curves", 2.7 * columns + 0.3, 1.9 * sum(rows.values()) + 0.6) as f:
        start = 0
        for column, height in rows.items():
            axes: list[Axes] = []
            for n, (name, cells) in enumerate(panels[column]):
                place = (start + n // columns) * columns + n % columns + 1
                shared = axes[0] if axes else None
                ax = f.add_subplot(sum(rows.values()), columns, place, sharex=shared, sharey=shared)
                axes.append(ax)
                _lines(ax, cells, column)
                ax.set_title(name, fontsize=8, color=looks_of[name].colour, fontweight="bold")
                ax.tick_params(labelsize=7, labelleft=n % columns == 0)
                if n % columns == 0:
                    ax.set_ylabel(CURVES[column], fontsize=7.5)
            if column == "fvu":
                axes[0].set_ylim(top=min(MOST_FVU, axes[0].get_ylim()[1]))
            for ax, (_, cells) in zip(axes, panels[column], strict=True):
                _named(ax, cells, column)
            start += height
        f.supxlabel("training step", fontsize=8)
        f.suptitle(f"Training curves (training batches), {trained[0].hook}", fontsize=9)


def _with_most_seeds(cells: Sequence[Result]) -> list[Result]:
    several = [r for r in cells if len(r.saes) >= LEAST_SEEDS]
    return sorted(several or cells, key=lambda r: (r.expansion, r.metrics["l0"] or 0))


def _varies(cells: Sequence[Result], column: str) -> bool:
    curves = [(r, sae.curve) for r in cells for sae in r.saes if column in sae.curve]
    if not curves or constants(list(curve[column]) for _, curve in curves) is not None:
        return False
    parts = [float(curve[column].max()) / r.measured["d_sae"] for r, curve in curves]
    return column != "dead" or max(parts) >= LEAST_DEAD


def _lines(ax: Axes, cells: Sequence[Result], column: str) -> None:
    for r, colour in zip(cells, shades(len(cells)), strict=True):
        for step, values in _of(r, column):
            ax.plot(step, values, color=colour, lw=0.8)
    if column != "dead":
        ax.set_yscale("log")
        logarithmic(ax.yaxis)


def _of(r: Result, column: str) -> list[tuple[Floats, Floats]]:
    """(steps, values) of each of its SAEs."""
    scale = r.measured["d_sae"] if column == "dead" else 1
    curves = [sae.curve for sae in r.saes if column in sae.curve]
    return [(c["step"].to_numpy(float), c[column].to_numpy(float) / scale) for c in curves]


def _named(ax: Axes, cells: Sequence[Result], column: str) -> None:
    """The sparsity of cells at the ends of their lines, and the width where it differs."""
    ends = [(r, colour, curves) for r, colour in zip(cells, shades(len(cells)), strict=True)
            if (curves := _of(r, column))]  # fmt: skip
    chosen = ends if len(ends) <= LABELLED else [ends[0], ends[-1]]
    several = len({r.expansion for r in cells}) > 1
    low, high = ax.get_ylim()  # the axis takes its limits when it is asked for them
    to_axis = ax.transData.transform
    heights = [np.mean([values[-1] for _, values in curves]) for _, _, curves in chosen]
    places = [float(to_axis((0.0, max(height, 1e-12)))[1]) for height in heights]
    lowest, highest = (float(to_axis((0.0, y))[1]) for y in (low, high))
    moved = apart(places, 0.09 * (highest - lowest))
    for (r, colour, curves), place in zip(chosen, moved, strict=True):
        width = f"{r.expansion:g}×, " if several else ""
        y = float(ax.transData.inverted().transform((0.0, place))[1])
        ax.annotate(f" {width}{r.sparsity}", (curves[0][0][-1], y), color=colour, fontsize=6,
                    va="center", annotation_clip=False)  # fmt: skip
