"""Figures: every point where the table has it, whatever the number of cells."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from sae_repro.compare import curves, drawing, figures
from sae_repro.compare.collect import Result
from sae_repro.compare.drawing import apart, constants
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

    for module in (figures, curves):
        monkeypatch.setattr(module, "drawn", keep)
    return drawn


@pytest.mark.parametrize("lambdas", [2, 8, 40])
def test_the_heat_maps_hold_what_the_table_does(
    lambdas: int, kept: list[Figure], write: Callable[..., Result], tmp_path: Path
) -> None:
    values = np.geomspace(1e-4, 1e-1, lambdas)
    results = [
        write(f"{x}-{n}", Cell(expansion=x, penalty="l1", **{"lambda": lam}), dead=(n + x) % 9)
        for n, lam in enumerate(values) for x in (4, 8, 16)
    ]  # fmt: skip
    figures.dead_fraction(tmp_path, results)
    panels = [ax.images[0] for ax in kept[0].axes if ax.get_title()]
    assert len(panels) == len(figures.DEAD)
    assert len({panel.get_clim() for panel in panels}) == 1
    for panel, metric in zip(panels, figures.DEAD, strict=True):
        long, _ = dead_table(results, metric)
        table = long.dropna(subset="cell").pivot(index="lambda", columns="expansion", values="dead")
        assert np.allclose(panel.get_array(), table.sort_index(ascending=False).to_numpy())


def test_no_panel_is_empty(
    kept: list[Figure], write: Callable[..., Result], tmp_path: Path
) -> None:
    """A grid without a dead latent has no figure, a constant L0 no panel of curves."""
    alive = [write(f"a{x}", Cell(expansion=x, penalty="l1", **{"lambda": 1e-2})) for x in (4, 8)]
    figures.dead_fraction(tmp_path, alive)
    assert kept == []
    figures.write_figures(tmp_path, alive)
    curves.write_curves(tmp_path, alive)
    drawn = [ax for figure in kept for ax in figure.axes]
    assert all(ax.lines or ax.patches or ax.images or ax.collections for ax in drawn)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.floats(0.01, 2))
def test_labels_keep_their_order_and_their_distance(places: list[float], gap: float) -> None:
    moved = apart(places, gap)
    order = np.argsort(places, kind="stable")
    assert (np.diff(np.array(moved)[order]) >= gap * (1 - 1e-9)).all()
    assert np.mean(moved) == pytest.approx(np.mean(places), abs=1e-9)
    if len(places) > 1 and np.diff(np.sort(places)).min() > gap:
        assert moved == pytest.approx(places)


def test_a_panel_of_constants_is_known() -> None:
    assert constants([[8, 8], [16, 16]]) == [8, 16]
    assert constants([[0, 0], [0, 1]]) is None
    assert constants([[float("nan"), 2.0]]) == [2.0]


def test_the_title_of_one_panel_is_whole(
    write: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Figure] = []

    @contextmanager
    def keep(*arguments: Any) -> Iterator[Figure]:
        with drawing.drawn(*arguments) as figure:
            kept.append(figure)
            yield figure

    monkeypatch.setattr(figures, "drawn", keep)
    cells = [write(f"k{k}", Cell(expansion=8, activation="topk", k=k, hook="activations"),
                   l0=float(k), extra={"kl": 0.0}) for k in (4, 8)]  # fmt: skip
    figures.write_figures(tmp_path, cells, targets=[4.0, 8.0])
    frontier, density = kept
    assert len(frontier.axes) == 1
    title = frontier.get_suptitle()
    assert "3,000 held-out rows of 60 documents" in title.replace("\n", " ")
    assert "dotted: the L0 at which tables compare" in title.replace("\n", " ")
    frontier.set_dpi(150)  # of the file that was laid out; others were drawn since
    frontier.draw_without_rendering()
    around = frontier.texts[0].get_window_extent()
    assert around.x0 >= 0 and around.x1 <= frontier.bbox.x1
    assert density.get_supxlabel() == "log₁₀ of the fraction of rows on which a latent fires"


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


def test_a_users_own_styles_change_no_byte_of_a_figure(tmp_path: Path) -> None:
    """matplotlib reads a matplotlibrc in the working folder before any other."""

    def bytes_of(folder: Path) -> dict[str, bytes]:
        folder.mkdir()
        code = (
            "from pathlib import Path\n"
            "from sae_repro.compare.drawing import drawn\n"
            "with drawn(Path(), 'x', 2, 2) as figure:\n"
            "    figure.subplots().plot([1, 2], label='a')\n"
        )
        if folder.name == "own":
            (folder / "matplotlibrc").write_text("font.size: 33\nlines.linewidth: 9\n")
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
        return {path.name: path.read_bytes() for path in folder.glob("x.*")}

    plain = bytes_of(tmp_path / "plain")
    assert len(plain) == 3
    assert bytes_of(tmp_path / "own") == plain
