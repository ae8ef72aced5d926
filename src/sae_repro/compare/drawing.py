"""Drawing of figures: one style, PNG to look at, SVG and PDF to print, the same bytes again."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sae_repro.params.appearance import Look

PER_INCH = 15.5
"""Characters of a title."""
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
    with mpl.rc_context():
        mpl.rcdefaults()  # whatever a user's own matplotlibrc has
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height))
        yield figure
        for ending, how in FORMATS.items():
            figure.savefig(folder / f"{name}.{ending}", **how)
            # it is laid out: to do so again takes as long as to draw. What the layout engine "none"
            # leaves in its place would have savefig draw everything twice
            setattr(figure, "_layout_engine", None)  # noqa: B010


def handle(look: Look, label: str | None = None) -> Line2D:
    """The entry of an architecture in a legend."""
    return Line2D([], [], marker=look.marker, ls="", color=look.colour, label=label or look.label)


def shades(n: int) -> list[Any]:
    """n colours from dark to light for an ordered quantity; safe for colour-blind readers."""
    return list(mpl.colormaps["cividis"](np.linspace(0, 0.85, n)))


def broken(title: str, inches: float) -> str:
    """A title of font size 8 with its lines broken that are wider than `inches`: they are cut."""
    return "\n".join(fill(line, int(inches * PER_INCH)) for line in title.split("\n"))


def logarithmic(*axes: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each decade of logarithmic axes."""
    for axis in axes:
        axis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
        axis.set_minor_formatter(mpl.ticker.NullFormatter())


def constants(series: Iterable[Sequence[float]]) -> list[float] | None:
    """The distinct values of series that are all constant; None where one of them varies."""
    values: dict[float, None] = {}
    for one in series:
        distinct = {float(v) for v in one if v == v}
        if len(distinct) > 1:
            return None
        values |= dict.fromkeys(distinct)
    return sorted(values)


def apart(places: Sequence[float], gap: float) -> list[float]:
    """`places` moved as little as keeps their order and `gap` between neighbours.

    Neighbours that would be nearer are spread about their mean.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    blocks: list[list[int]] = []

    def centre(block: list[int]) -> float:
        return float(np.mean([places[i] for i in block]))

    for i in order:
        blocks.append([i])
        while len(blocks) > 1:
            room = gap * (len(blocks[-1]) + len(blocks[-2])) / 2
            if centre(blocks[-1]) - centre(blocks[-2]) >= room:
                break
            last = blocks.pop()
            blocks[-1] += last
    moved = {
        i: centre(block) + gap * (n - (len(block) - 1) / 2)
        for block in blocks
        for n, i in enumerate(block)
    }
    return [moved[i] for i in range(len(places))]
