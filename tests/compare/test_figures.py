"""Figures: every point where the table has it, whatever the number of cells."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from sae_repro.compare import figures
from sae_repro.compare.collect import Result
from sae_repro.compare.drawing import constants, dodged, room_between
from sae_repro.compare.grid import dead_table
from sae_repro.params import Cell


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, in place of files."""
    drawn: list[Figure] = []

    @contextmanager
    def keep(folder: Path, name: str, width: float, height: float) -> Iterator[Figure]:
        drawn.append(Figure(figsize=(width, height)))
        yield drawn[-1]

    monkeypatch.setattr(figures, "drawn", keep)
    return drawn


@pytest.mark.parametrize("lambdas", [2, 8, 21, 40])
def test_dead_latents_of_every_cell_are_drawn_at_their_place(
    lambdas: int, kept: list[Figure], write: Callable[..., Result], tmp_path: Path
) -> None:
    values = np.geomspace(1e-4, 1e-1, lambdas)
    results = [
        write(f"{x}-{n}", Cell(expansion=x, penalty="l1", **{"lambda": lam}), dead=(n + x) % 9)
        for n, lam in enumerate(values) for x in (4, 8, 16)
    ]  # fmt: skip
    figures.dead_fraction(tmp_path, results)
    for ax, metric in zip(kept[0].axes, figures.DEAD, strict=True):
        long, _ = dead_table(results, metric)
        table = long.dropna(subset="cell")
        across = "lambda" if lambdas > 3 else "expansion"
        places = sorted(table[across].unique())
        points = [xy for line in ax.containers for xy in zip(*line[0].get_data(), strict=True)]
        nearest = [
            (places[int(np.argmin(np.abs(np.log(places) - np.log(x))))], y) for x, y in points
        ]
        expected = sorted(zip(table[across], table["dead"], strict=True))
        assert len(nearest) == len(expected)
        assert np.allclose(sorted(nearest), expected)


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=40, unique=True), st.integers(1, 60))
def test_no_point_comes_nearer_to_another_place(places: list[int], series: int) -> None:
    ordered = [float(1.1**n) for n in sorted(places)]
    room = room_between(ordered)
    for n in range(series):
        moved = dodged(ordered, n, series, room)
        assert (moved > 0).all()
        nearest = np.argmin(np.abs(np.log(moved)[:, None] - np.log(ordered)), axis=1)
        assert nearest.tolist() == list(range(len(ordered)))


def test_a_panel_of_constants_is_known() -> None:
    assert constants([[8, 8], [16, 16]]) == [8, 16]
    assert constants([[0, 0], [0, 1]]) is None
    assert constants([[float("nan"), 2.0]]) == [2.0]


def test_architectures_keep_their_colours_whatever_else_is_drawn(
    kept: list[Figure], write: Callable[..., Result], tmp_path: Path
) -> None:
    def topk(k: int, **more: Any) -> Cell:
        return Cell(expansion=8, activation="topk", k=k, revival="auxk", dead_tokens=9, **more)

    few = [write("a", topk(8), l0=8.0), write("b", topk(16), l0=16.0)]
    more = [write("v", Cell(expansion=8, penalty="l1", **{"lambda": 1e-2}), l0=30.0), *few]
    colours = []
    for results in (few, more):
        figures.write_figures(tmp_path, results)
        colours.append(kept[0].axes[0].lines[-1].get_color())
        kept.clear()
    assert colours[0] == colours[1] == "#0072B2"
