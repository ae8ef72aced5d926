"""Cells that differ only in the layer whose activations they read: figures/layers."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sae_repro.compare.collect import Result
from sae_repro.compare.drawing import drawn
from sae_repro.compare.tables import measured_on
from sae_repro.params import parts_of, weights_of
from sae_repro.params.appearance import Look, looks

LEAST_LAYERS = 3
"""Of a line: two are a row of a table each."""
LINE_STYLES = ("-", "--", ":", "-.")
METRICS = {
    "fvu": "FVU, fraction of variance\nunexplained ↓",
    "monosemantic_fraction": "monosemantic latents\n(fraction of K) ↑",
    "dead_fraction_never": "latents that never fire\n(fraction of K) ↓",
}

Line = list[tuple[int, Result]]
"""(layer, cell) by layer."""


def by_layer(results: Sequence[Result]) -> dict[tuple[str, str], Line]:
    """Finished cells that differ in nothing but their layer, by (place in the block, choices).

    Of `LEAST_LAYERS` layers or more.
    """
    groups: dict[tuple[str, str], dict[int, Result]] = defaultdict(dict)
    for r in results:
        if not r.ok or r.cell.import_ is not None or r.cell.target_hook or r.cell.hooks:
            continue  # a transcoder lies between two layers, a crosscoder at several
        hook = parts_of(r.hook)
        if hook.layer is not None:
            head = "" if hook.head is None else f".{hook.head}"
            place = f"{weights_of(r.hook)}{hook.place}{head}"
            choices = r.cell.model_dump_json(exclude={"hook"})
            groups[place, choices].setdefault(hook.layer, r)
    return {key: sorted(of.items()) for key, of in groups.items() if len(of) >= LEAST_LAYERS}


def draw_layers(folder: Path, results: Sequence[Result]) -> None:
    """FVU, monosemantic and dead latents by layer: a line per group of `by_layer`; none without.

    Bars: the cells' 95 % intervals.
    """
    lines = by_layer(results)
    shown = [m for m in METRICS if any(m in r.metrics for line in lines.values() for _, r in line)]
    if not lines or not shown:
        return
    cells = [r for line in lines.values() for _, r in line]
    places = list(dict.fromkeys(place for place, _ in lines))
    styles = {place: LINE_STYLES[n % len(LINE_STYLES)] for n, place in enumerate(places)}
    looks_of = looks(r.architecture for r in results)
    height = 3.4 + 0.16 * len(lines)
    with drawn(folder, "layers", 3.4 * len(shown) + 0.4, height) as figure:
        for ax, metric in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            for (place, _), line in lines.items():
                _line(ax, line, metric, looks_of[line[0][1].architecture], place, styles[place])
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set(xlabel="layer (block of the model)", ylabel=METRICS[metric])
            ax.set_ylim(bottom=0)
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, fontsize=7, loc="outside lower center")
        figure.suptitle(
            f"By layer, {measured_on(cells)}; bars: 95 % intervals; cells of a line differ in "
            "nothing but their layer",
            fontsize=8,
        )


def _line(ax: Axes, line: Line, metric: str, look: Look, place: str, style: str) -> None:
    known = [(layer, r) for layer, r in line if r.metrics.get(metric) is not None]
    values = np.array([r.metrics[metric] for _, r in known], dtype=np.float64)
    bounds = np.array([r.interval(metric) or (np.nan, np.nan) for _, r in known], dtype=np.float64)
    ends = np.abs(bounds.reshape(-1, 2).T - values)
    first, last = line[0][1].name, line[-1][1].name
    ax.errorbar(
        [layer for layer, _ in known], values, yerr=np.nan_to_num(ends), color=look.colour,
        marker=look.marker, ms=4, lw=1, ls=style, elinewidth=0.7, capsize=2,
        label=f"{place}, {look.label} ({first} … {last})",
    )  # fmt: skip
