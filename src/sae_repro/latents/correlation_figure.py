"""Figure of mean max correlations: over the width of the references, a line per SAE."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from sae_repro.compare.drawing import drawn, logarithmic, shades
from sae_repro.latents.correlated_cells import Correlation

NAME = "correlations"


def draw(folder: Path, found: Sequence[Correlation]) -> None:
    """correlations.png, .svg and .pdf: a panel per architecture; dotted, the nulls."""
    architectures = list(dict.fromkeys(one.cell.architecture for one in found))
    widths = sorted({one.cell.width for one in found})
    colours = dict(zip(widths, shades(len(widths)), strict=True))
    with drawn(folder, NAME, 3.4 * len(architectures) + 0.4, 3.6) as figure:
        first: Axes | None = None
        for place, architecture in enumerate(architectures):
            ax = figure.add_subplot(1, len(architectures), place + 1, sharex=first, sharey=first)
            first = first or ax
            _panel(ax, [one for one in found if one.cell.architecture == architecture], colours)
            ax.set_title(architecture, fontsize=9)
            if not place:
                ax.set_ylabel("mean max correlation ↑", fontsize=8)


def _panel(ax: Axes, found: Sequence[Correlation], colours: dict[int, Any]) -> None:
    for cell in dict.fromkeys(one.cell.name for one in found):
        own = [one for one in found if one.cell.name == cell]
        x = [one.reference.width for one in own]
        y = [one.found.value for one in own]
        bars = [
            [_finite(one.found.value - one.found.low) for one in own],
            [_finite(one.found.high - one.found.value) for one in own],
        ]
        colour = colours[own[0].cell.width]
        ax.errorbar(x, y, yerr=bars, marker="o", ms=2.5, lw=1, capsize=2, color=colour,
                    label=f"K {own[0].cell.width:,}")  # fmt: skip
        ax.plot(x, [one.found.null for one in own], ":", lw=0.7, color=colour)
    ax.set_xscale("log")
    logarithmic(ax.xaxis)
    ax.tick_params(labelsize=7)
    ax.set_xlabel("K of the reference", fontsize=8)
    ax.legend(fontsize=6)


def _finite(length: float) -> float:
    """The length of a bar; 0 of one that is not known."""
    return length if length == length else 0.0
