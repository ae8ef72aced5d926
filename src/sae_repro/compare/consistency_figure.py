"""Figure of consistency: shared latents over the threshold, PW-MCC over L0 and over width."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sae_repro.compare.collect import Result
from sae_repro.compare.consistency import consistent
from sae_repro.compare.drawing import drawn, handle, logarithmic
from sae_repro.compare.tables import unit_in
from sae_repro.metrics.labels import heading
from sae_repro.params.appearance import Look, looks
from sae_repro.remarks import missed_on


def draw_consistency(folder: Path, results: Sequence[Result]) -> None:
    """consistency.png and others; nothing where no trained cell's seeds were compared.

    One hook, length of training and width, those with most cells; the curves are at the middle one
    of its target L0. Widths have a panel where an architecture has several at that L0.
    """
    looks_of = looks(r.architecture for r in results)
    cells = [r for r in consistent(results) if not r.negative]
    if not cells:
        return
    hook = _commonest([r.hook for r in cells])
    on_hook = [r for r in cells if r.hook == hook]
    length = Counter(r.tokens for r in on_hook).most_common(1)[0][0]
    on_hook = [r for r in on_hook if r.tokens == length]
    width = int(_commonest([str(r.measured["d_sae"]) for r in on_hook]))
    of_width = [r for r in on_hook if r.measured["d_sae"] == width]
    targets = sorted({t for r in of_width if (t := r.cell.l0_target) is not None})
    target = targets[(len(targets) - 1) // 2] if targets else None
    at_target = [r for r in on_hook if r.cell.l0_target == target and not _missed(r)]
    widths = Counter(r.architecture for r in at_target)
    several = [r for r in at_target if widths[r.architecture] > 1]
    curves = [r for r in at_target if r.measured["d_sae"] == width]
    panels = bool(curves) + 1 + bool(several)
    with drawn(folder, "consistency", 3.4 * panels + 2.0, 3.6) as figure:
        axes = list(figure.subplots(1, panels, squeeze=False)[0])
        at = "all cells" if target is None else f"target L0 = {target:g}"
        if curves:
            _curves(axes.pop(0), curves, looks_of, f"{at}, K = {width:,}")
        _over(axes.pop(0), of_width, looks_of, "l0", f"K = {width:,}")
        if several:
            _over(axes.pop(0), several, looks_of, "K", at)
        shown = {r.architecture for r in (*curves, *of_width, *several)}
        marks = [handle(look) for name, look in looks_of.items() if name in shown]
        figure.legend(handles=marks, loc="outside right center")
        seeds = sorted({r.measured["counts"]["consistency_seeds"] for r in of_width})
        of = " or ".join(map(str, seeds))
        figure.suptitle(
            f"Latents that seeds have in common ({of} seeds per cell), {hook}", fontsize=10
        )


def _commonest(values: Sequence[str]) -> str:
    """The most frequent; of equals the first."""
    return Counter(values).most_common(1)[0][0]


def _missed(r: Result) -> bool:
    return bool(missed_on(r.cell, r.measured))


def _curves(ax: Axes, cells: Sequence[Result], looks_of: Mapping[str, Look], title: str) -> None:
    """Shared fraction over the threshold: mean over the pairs, and a line for each pair."""
    for r in cells:
        look = looks_of[r.architecture]
        curve = pd.read_parquet(r.evaluated / "consistency" / "curve.parquet")
        by = curve.pivot_table("shared_fraction", "threshold", ["seed_a", "seed_b"], sort=True)
        ax.plot(by.index, by.to_numpy(), color=look.colour, lw=0.4, alpha=0.5)
        ax.plot(by.index, by.mean(axis=1), color=look.colour, lw=1.4)
    ax.axvline(0.7, color="0.75", lw=0.8, ls=":", zorder=0)
    ax.set(xlabel="decoder cosine above", ylabel=heading("shared_fraction"))
    ax.set_title(title, fontsize=8)


def _over(
    ax: Axes, cells: Sequence[Result], looks_of: Mapping[str, Look], what: str, title: str
) -> None:
    """PW-MCC over L0 or K, with the interval over seeds as a band; the null as a broken line."""
    for architecture in dict.fromkeys(r.architecture for r in cells):
        look = looks_of[architecture]
        line = [r for r in cells if r.architecture == architecture]
        line.sort(key=lambda r: _x(r, what))
        x = [_x(r, what) for r in line]
        y = np.array([r.metrics["pw_mcc"] for r in line], dtype=np.float64)
        ends = [r.interval("pw_mcc") or (v, v) for r, v in zip(line, y, strict=True)]
        low, high = np.array(ends, dtype=np.float64).T
        ax.fill_between(x, low, high, color=look.colour, alpha=0.15, lw=0)
        ax.plot(x, y, color=look.colour, marker=look.marker, ms=4, lw=1)
    nulls = sorted((_x(r, what), r.metrics["pw_mcc_null"]) for r in cells)
    ax.plot(*zip(*nulls, strict=True), color="0.5", lw=1, ls="--", zorder=0)
    ax.annotate("random directions", nulls[0], xytext=(0, -9), textcoords="offset points",
                fontsize=6.5, color="0.4")  # fmt: skip
    x_label = heading("l0", of=unit_in(cells)) if what == "l0" else "K"
    ax.set(xscale="log", xlabel=x_label, ylabel=heading("pw_mcc"))
    logarithmic(ax.xaxis)
    ax.set_title(title, fontsize=8)


def _x(r: Result, what: str) -> float:
    return float(r.metrics["l0"] or 0) if what == "l0" else float(r.measured["d_sae"])
