"""The figure `widths`: shares by width and by cosine, mean max cosines; a row per ladder."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from sae_repro.compare.drawing import broken, drawn, logarithmic, shades
from sae_repro.compare.widths.ladders import Ladder, width_of
from sae_repro.compare.widths.relations import KINDS, NEAR
from sae_repro.compare.widths.tables import Widths

MOST_ROWS = 6
MARKERS = "os^Dv<>P*X"
"""One per architecture."""
COLOURS = dict(zip(KINDS, shades(len(KINDS)), strict=True))


def draw_widths(folder: Path, widths: Widths) -> None:
    """widths.png, .svg and .pdf; of each hook, architecture and target the longest training."""
    if not len(widths.relations):
        return
    longest: dict[tuple[object, ...], Ladder] = {}
    for ladder in widths.ladders:
        key = tuple(ladder.place[name] for name in ("hook", "architecture", "target_l0"))
        known = longest.get(key)
        if known is None or (ladder.tokens or 0) > (known.tokens or 0):
            longest[key] = ladder
    rows = [ladder for ladder in longest.values() if len(_of(widths.relations, ladder))]
    rows = rows[:MOST_ROWS]
    if not rows:
        return
    panels: list[Callable[[Axes, Ladder, Widths], None]] = [_by_width, _by_cosine, _correlations]
    with drawn(folder, "widths", 14.5, 2.9 * len(rows) + 0.5) as figure:
        for number, ladder in enumerate(rows):
            for place, panel in enumerate(panels):
                ax = figure.add_subplot(len(rows), 3, 3 * number + place + 1)
                ax.tick_params(labelsize=7)
                panel(ax, ladder, widths)
        figure.suptitle(
            "Across widths: what a wider SAE adds, splits and keeps (dashed: another seed of the "
            "same width)",
            fontsize=9,
        )


def _of(frame: pd.DataFrame, ladder: Ladder) -> pd.DataFrame:
    """The rows of one ladder."""
    if not len(frame):
        return frame
    place = ladder.place
    mask = pd.Series(True, index=frame.index)
    for name in ("hook", "architecture", "target_l0", "training_tokens"):
        value = place[name]
        mask &= frame[name].isna() if value is None else frame[name] == value
    names = {r.name for r in ladder.cells}
    own = "narrow" if "narrow" in frame else "reference"
    return frame[mask & frame[own].isin(names)]


def _by_width(ax: Axes, ladder: Ladder, widths: Widths) -> None:
    """Shares of each step, over the wide K."""
    frame = _of(widths.relations, ladder)
    frame = frame[frame["neighbours"] == "yes"]
    for name in KINDS:
        low, high = frame[name] - frame[f"{name}_low"], frame[f"{name}_high"] - frame[name]
        ax.errorbar(frame["K_wide"], frame[name], yerr=[low.fillna(0), high.fillna(0)],
                    marker="o", ms=3, lw=1, capsize=2, color=COLOURS[name], label=name)  # fmt: skip
        ax.plot(frame["K_wide"], frame[f"{name}_same_width"], "--", lw=0.8, color=COLOURS[name])
    ax.set_xscale("log")
    logarithmic(ax.xaxis)
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("K of the wider SAE", fontsize=8)
    ax.set_ylabel("fraction of its latents", fontsize=8)
    ax.set_title(broken(ladder.name, 2.6), fontsize=8)
    _legend(ax)


def _by_cosine(ax: Axes, ladder: Ladder, widths: Widths) -> None:
    """New and split latents of each step over the threshold."""
    frame = _of(widths.curve, ladder)
    steps = ladder.steps
    for (narrow, wide), colour in zip(steps, shades(len(steps)), strict=True):
        own = frame[(frame["narrow"] == narrow.name) & (frame["wide"] == wide.name)]
        label = f"{narrow.measured['d_sae']:,} → {wide.measured['d_sae']:,}"
        ax.plot(own["threshold"], own["new"], "o-", ms=2.5, lw=1, color=colour, label=label)
        ax.plot(own["threshold"], own["new_same_width"], "--", lw=0.8, color=colour)
    ax.axvline(NEAR, color="0.7", lw=0.7)
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("cosine below which a latent is new", fontsize=8)
    ax.set_ylabel("new (fraction)", fontsize=8)
    ax.set_title("new latents by threshold", fontsize=8)
    _legend(ax)


def _correlations(ax: Axes, ladder: Ladder, widths: Widths) -> None:
    """Mean max cosine over the reference's width, a line per cell; dotted: random directions.

    A shade for each width, a marker for each architecture, the ladder's own first.
    """
    frame = _of(widths.correlations, ladder)
    cells = [*ladder.cells, *ladder.others]
    sizes = sorted({width_of(r) for r in cells})
    colours = dict(zip(sizes, shades(len(sizes)), strict=True))
    architectures = list(dict.fromkeys(r.architecture for r in cells))
    for r in cells:
        own, colour = frame[frame["cell"] == r.name], colours[width_of(r)]
        of = "" if r in ladder.cells else f"{r.architecture}, "
        marker = MARKERS[architectures.index(r.architecture) % len(MARKERS)]
        ax.plot(own["K_reference"], own["mean_max_cosine"], marker=marker, ms=2.5, lw=1,
                color=colour, label=f"{of}K {width_of(r):,}")  # fmt: skip
        ax.plot(own["K_reference"], own["random"], ":", lw=0.7, color=colour)
    ax.set_xscale("log")
    logarithmic(ax.xaxis)
    ax.set_xlabel("K of the reference", fontsize=8)
    ax.set_ylabel("mean max cosine ↑", fontsize=8)
    ax.set_title("does it hold the reference's latents?", fontsize=8)
    _legend(ax, 5.5)


def _legend(ax: Axes, size: float = 6) -> None:
    """To the right of a panel: lines cross all of it."""
    ax.legend(fontsize=size, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
