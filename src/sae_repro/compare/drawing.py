"""Drawing of figures: one style, PNG to look at, SVG and PDF to print, the same bytes again."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sae_repro.params.appearance import Look

Floats = npt.NDArray[np.float64]

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "sae-repro",  # ids in the SVG must not vary
    "pdf.fonttype": 42,  # journals refuse Type 3
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 150, "metadata": {"Software": None}},
    "svg": {"metadata": {"Date": None, "Creator": None}},
    "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}
"""Without dates and versions: the same numbers give the same bytes."""


@contextmanager
def drawn(folder: Path, name: str, width: float, height: float) -> Iterator[Figure]:
    """A figure without pyplot's global state, written to `name` in every format."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        yield figure
        for ending, how in FORMATS.items():
            figure.savefig(folder / f"{name}.{ending}", **how)
            # it is laid out: to do so again takes as long as to draw
            figure.set_layout_engine("none")


def handle(look: Look, label: str | None = None) -> Line2D:
    """The entry of an architecture in a legend."""
    return Line2D([], [], marker=look.marker, ls="", color=look.colour, label=label or look.label)


def shades(n: int) -> list[Any]:
    """n colours from dark to light for an ordered quantity; safe for colour-blind readers."""
    return list(mpl.colormaps["cividis"](np.linspace(0, 0.85, n)))


def logarithmic(*axes: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each decade of logarithmic axes."""
    for axis in axes:
        axis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
        axis.set_minor_formatter(mpl.ticker.NullFormatter())


def without_panel(ax: Axes, text: str) -> None:
    """A sentence in place of a panel that would show a constant."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=7, color="0.4",
            transform=ax.transAxes)  # fmt: skip


def constants(series: Iterable[Sequence[float]]) -> list[float] | None:
    """The distinct values of series that are all constant; None where one of them varies."""
    values: dict[float, None] = {}
    for one in series:
        distinct = {float(v) for v in one if v == v}
        if len(distinct) > 1:
            return None
        values |= dict.fromkeys(distinct)
    return sorted(values)


def dodged(x: Sequence[float], series: int, of: int, room: float) -> Floats:
    """`x` of one of several series, apart from the others on a logarithmic axis.

    So that equal points don't hide each other; all series of one place lie within `room` (a
    difference of logarithms) around it.
    """
    places = np.asarray(x, dtype=np.float64)
    return places if of < 2 else places * np.exp(room * (series / (of - 1) - 0.5))


def room_between(ticks: Iterable[float]) -> float:
    """Room for the series of a place on a logarithmic axis: a third of the way to the nearest."""
    gaps = np.diff(np.log(sorted(ticks)))
    return float(gaps.min() / 3) if len(gaps) else 0.2
