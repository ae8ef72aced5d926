"""What is said across widths of dictionaries that are built from known atoms."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from safetensors.numpy import save_file

from sae_repro.compare.collect import Result
from sae_repro.compare.drawing import drawn
from sae_repro.compare.widths import directions
from sae_repro.compare.widths import figure as figure_of_widths
from sae_repro.compare.widths.directions import WEIGHTS, Atoms, Floats, nearest, random_atoms
from sae_repro.compare.widths.figure import draw_widths
from sae_repro.compare.widths.ladders import by_seed, ladders, pairs_of, width_of
from sae_repro.compare.widths.relations import KINDS, hedging, shares
from sae_repro.compare.widths.tables import Widths, measure_widths, write_widths
from sae_repro.errors import StudyError
from sae_repro.params import Cell

D = 64
ATOMS = np.linalg.qr(np.random.default_rng(0).standard_normal((D, D)))[0]
"""True features, orthonormal."""
FVU = {16: 0.4, 32: 0.2, 64: 0.1}


def narrow(seed: int, mixed: float) -> Floats:
    """Atoms 0 to 13, the first 8 with a part of atoms 16 to 23; 2 that this seed alone has."""
    rows = ATOMS[:16].copy()
    rows[:8] += mixed * ATOMS[16:24]
    rows[14:] = ATOMS[40 + 2 * seed : 42 + 2 * seed]
    return rows


def wide() -> Floats:
    """Atoms 0 to 7 again, two versions of each of 8 to 11, and atoms 16 to 31, which are new."""
    split = [ATOMS[i] + sign * 0.6 * ATOMS[i + 44] for i in range(8, 12) for sign in (1, -1)]
    return np.concatenate([ATOMS[:8], split, ATOMS[16:32]])


def widest() -> Floats:
    """The wide ones again, and as many more that are near none of them."""
    return np.concatenate([wide(), -wide()])


Study = Callable[..., list[Result]]


@pytest.fixture
def study(write: Callable[..., Result], write_seeds: Callable[..., Result]) -> Study:
    """Three widths of TopK and one Matryoshka SAE of some seeds; decoder rows scaled at random."""

    def go(mixed: float = 0.3, seeds: int = 3, failed: str = "") -> list[Result]:
        made = []
        for name, choices, rows_of, fvu in (
            ("x025", {"expansion": 0.25}, lambda seed: narrow(seed, mixed), FVU[16]),
            ("x05", {"expansion": 0.5}, lambda seed: wide(), FVU[32]),
            ("x1", {"expansion": 1}, lambda seed: widest(), FVU[64]),
            ("nested", {"expansion": 0.5, "activation": "batchtopk", "prefixes": "fixed"},
             lambda seed: wide(), 0.3),
        ):  # fmt: skip
            many = {"seeds": [*range(seeds)]} if seeds > 1 else {}
            cell = Cell.model_validate({"activation": "topk", "k": 8, **many, **choices})
            numbers = [{"l0": 8.0, "fvu": fvu * (1 + 0.01 * s), "noise": 1} for s in range(seeds)]
            if name == failed:
                numbers[0] = {"status": "failed"}
            r = write_seeds(name, cell, numbers) if many else write(name, cell, **numbers[0])
            made.append(r)
            for sae in r.saes:
                seed = sae.cell.seed
                rng = np.random.default_rng(seed)
                rows = rows_of(seed)[rng.permutation(len(rows_of(seed)))]
                scaled = (rows * rng.uniform(0.5, 2, (len(rows), 1))).astype(np.float32)
                save_file({"W_dec": scaled}, sae.trained / WEIGHTS)
        return made

    return go


def written(results: list[Result], folder: Path) -> Widths:
    folder.mkdir(exist_ok=True)
    found = measure_widths(results, 0)
    write_widths(folder, found)
    draw_widths(folder, found)
    return found


def test_tables_of_given_activations_say_rows(study: Study, tmp_path: Path) -> None:
    write_widths(tmp_path, measure_widths(study(), 0), "rows")
    tables = {path.name: path.read_text() for path in tmp_path.glob("*.md")}
    assert "held-out rows" in tables["widths.md"]
    assert len(tables) > 2 and not any("tokens" in text for text in tables.values())


def test_new_split_and_copied_latents_are_counted(study: Study, tmp_path: Path) -> None:
    written(study(), tmp_path / "out")
    rows = pd.read_csv(tmp_path / "out/widths.csv").set_index(["narrow", "wide"])
    assert list(rows.index) == [("x025", "x05"), ("x025", "x1"), ("x05", "x1")]
    row: dict[str, Any] = rows.loc[("x025", "x05")].to_dict()
    assert [row[name] for name in KINDS] == [16 / 32, 8 / 32, 8 / 32]
    assert row["narrow_split"] == 4 / 16 and row["narrow_lost"] == 4 / 16
    assert row["new_low"] == row["new_high"] == row["new"]
    # another seed of the same width: its own two latents are new, the others copies
    assert row["new_same_width"] == 2 / 16 and row["copy_same_width"] == 14 / 16
    assert row["new_random"] > 0.99
    assert row["density_copy"] == 1 and row["density_split"] == 2
    assert row["seeds"] == 3 and row["pairs"] == 6 and row["neighbours"] == "yes"
    curve = pd.read_csv(tmp_path / "out/widths_curve.csv").query("wide == 'x05'")
    assert curve["new"].is_monotonic_increasing
    np.testing.assert_allclose(curve[[*KINDS]].sum(axis=1), 1)
    # versions at cosine 1 / √1.36 = .857, mixed ones at 1 / √1.09 = .958
    assert curve.set_index("threshold")["split"].to_dict()[0.9] == 0
    assert curve.set_index("threshold")["copy"].to_dict()[0.95] == 8 / 32
    assert {"widths.md", "widths_trees.md", "widths.svg"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


@pytest.mark.parametrize("mixed", [0.3, -0.3])
def test_hedging_has_the_sign_and_the_size_of_what_is_mixed_in(study: Study, mixed: float) -> None:
    row = measure_widths(study(mixed), 0).relations.iloc[0]
    part = mixed / np.sqrt(1 + mixed**2)
    # of 16 new latents each of the 8 mixed copies holds one
    assert row["hedging_beyond_seeds"] == pytest.approx(D * part**2 / 16, rel=1e-4)
    assert row["leaning_beyond_seeds"] == pytest.approx(np.sqrt(D) * part / 16, rel=1e-4)
    assert row["hedging_same_width"] == pytest.approx(0, abs=1e-5)


def test_without_mixing_there_is_no_hedging(study: Study) -> None:
    row = measure_widths(study(0.0), 0).relations.iloc[0]
    assert row["hedging"] == pytest.approx(0, abs=1e-5)
    assert row["leaning"] == pytest.approx(0, abs=1e-5)


def test_equivalent_widths_lie_on_the_line_and_are_never_extrapolated(
    study: Study, tmp_path: Path
) -> None:
    results = study()
    rows = measure_widths(results, 0).equivalent
    assert list(rows["cell"]) == ["nested"] and list(rows["metric"]) == ["fvu"]
    # half-way from .4 to .2 is half-way in log K from 16 to 32
    assert rows["K_equivalent"][0] == pytest.approx(16 * np.sqrt(2))
    assert rows["ratio"][0] == pytest.approx(np.sqrt(2) / 2)
    assert rows["ratio_low"][0] <= rows["ratio"][0] <= rows["ratio_high"][0]
    narrowest = [r for r in results if r.name != "x025"]
    rows = measure_widths(narrowest, 0).equivalent
    assert rows["K_equivalent"].isna().all() and rows["reading"][0] == "outside the widths"


def test_mean_max_cosine_is_one_where_all_latents_are_held(study: Study) -> None:
    rows = measure_widths(study(0.0), 0).correlations.set_index(["reference", "cell"])
    value = rows["mean_max_cosine"]
    assert value["x05", "x1"] == pytest.approx(1) and value["x05", "nested"] == pytest.approx(1)
    assert value["x05", "x05"] == pytest.approx(1)  # another seed
    assert value["x025", "x025"] == pytest.approx(14 / 16, abs=0.01)
    assert (rows["random"] < 0.6).all()


def test_trees_follow_latents_from_width_to_width(study: Study) -> None:
    trees = measure_widths(study(), 0).trees
    assert trees["tree"].max() == 4
    for _, tree in trees.groupby("tree"):
        assert tree["K"].value_counts().to_dict() == {16: 1, 32: 2, 64: 2}
        root, *others = tree.to_dict("records")
        assert np.isnan(root["parent"]) and np.isnan(root["cosine"])
        assert [o["parent"] for o in others[:2]] == [root["latent"]] * 2
        assert {o["parent"] for o in others[2:]} == {o["latent"] for o in others[:2]}
        assert [o["cosine"] for o in others] == pytest.approx([1.36**-0.5] * 2 + [1.0] * 2)


def test_concepts_are_compared_with_the_parents(study: Study) -> None:
    results = study()
    for r in results[:2]:
        for sae in r.saes:
            k = r.measured["d_sae"]
            frame = pd.DataFrame({"latent": range(k), "concept": ["a"] * (k - 1) + [None]})
            frame.to_parquet(sae.evaluated / "monosemantic.parquet")
    found = measure_widths(results, 0)
    assert found.relations["same_concept_copy"][0] == 1
    assert np.isnan(found.relations["same_concept_copy"][1])  # the widest has no bank
    assert set(found.trees["concept"].dropna()) == {"a"}


def test_no_legend_lies_on_a_panel_and_nothing_beyond_the_figure(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Figure] = []

    @contextmanager
    def keep(*arguments: Any) -> Iterator[Figure]:
        with drawn(*arguments) as figure:
            kept.append(figure)
            yield figure

    monkeypatch.setattr(figure_of_widths, "drawn", keep)
    written(study(), tmp_path / "out")
    (figure,) = kept
    figure.set_dpi(150)  # of the file that was laid out; others were drawn since
    figure.draw_without_rendering()
    panels = [ax.get_window_extent() for ax in figure.axes]
    for ax in figure.axes:
        legend = ax.get_legend()
        assert legend is not None
        around = legend.get_window_extent()
        assert not any(around.overlaps(panel) for panel in panels)
        for part in (around, ax.title.get_window_extent(), ax.xaxis.label.get_window_extent()):
            assert part.x0 >= 0 and part.x1 <= figure.bbox.x1
            assert part.y0 >= 0 and part.y1 <= figure.bbox.y1


def test_one_seed_has_shares_and_nothing_to_compare_them_with(study: Study, tmp_path: Path) -> None:
    row = written(study(seeds=1), tmp_path / "out").relations.iloc[0]
    assert row["new"] == 0.5 and row["pairs"] == 1
    assert row[["new_low", "new_same_width", "hedging_beyond_seeds"]].isna().all()


@pytest.mark.parametrize("failed", ["x025", "x05"])
def test_cells_are_compared_by_the_seeds_that_both_have(study: Study, failed: str) -> None:
    """Not by the places of what finished: seed 0 of one cell is no partner of seed 1 of another."""
    results = study(failed=failed)
    other = next(r for r in results[:2] if r.name != failed)
    assert pairs_of(results[0], results[1]) == [(1, 2), (2, 1)]
    # the seed that the other cell lacks is not looked at
    save_file({"W_dec": -ATOMS[: width_of(other)].astype(np.float32)},
              by_seed(other)[0].trained / WEIGHTS)  # fmt: skip
    found = measure_widths(results, 0)
    row = found.relations.iloc[0]
    assert [row[name] for name in KINDS] == [16 / 32, 8 / 32, 8 / 32]
    assert row["new_same_width"] == 2 / 16
    assert row["seeds"] == row["pairs"] == 2
    curve = found.curve.query("wide == 'x05' and threshold == 0.7")
    assert curve["new"].item() == 0.5 and curve["new_same_width"].item() == 2 / 16
    held = found.correlations.query("reference == 'x025' and cell == 'x05'")
    assert held["seeds"].item() == 2


def test_a_cell_of_one_seed_is_compared_with_others_and_not_with_itself(study: Study) -> None:
    first, second, *_ = study(seeds=1)
    assert pairs_of(first, first) == [] and pairs_of(first, second) == [(0, 0)]


def test_cells_on_no_ladder(study: Study, tmp_path: Path) -> None:
    results = study()
    assert [[r.name for r in ladder.cells] for ladder in ladders(results)] == [
        ["x025", "x05", "x1"]
    ]
    for sae in (*results[0].saes, *results[1].saes):
        (sae.trained / WEIGHTS).unlink()
    written(results, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_weights_that_do_not_fit_the_evaluation_are_named(study: Study) -> None:
    results = study()
    save_file({"W_dec": np.ones((3, D), np.float32)}, results[0].saes[0].trained / WEIGHTS)
    with pytest.raises(StudyError, match="3 latents"):
        measure_widths(results, 0)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99), st.floats(-1, 1))
def test_shares_are_a_partition_whatever_the_order(
    a: int, b: int, seed: int, threshold: float
) -> None:
    first, second = random_atoms(a, 5, seed, "a"), random_atoms(b, 5, seed, "b")
    found = shares(nearest(first, second), threshold)
    assert sum(found[name] for name in KINDS) == pytest.approx(1)
    order = np.random.default_rng(seed).permutation(b)
    turned = Atoms(second.latent, second.rows_kd[order])
    assert shares(nearest(first, turned), threshold) == found
    whole = hedging(first, second, nearest(first, second))["hedging"]
    assert np.isnan(whole) or abs(whole) <= 5


def test_cosines_in_blocks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = random_atoms(30, 8, 0, "a"), random_atoms(50, 8, 0, "b")
    monkeypatch.setattr(directions, "ROWS", 7)
    found, cosine = nearest(a, b), b.rows_kd @ a.rows_kd.T
    np.testing.assert_array_equal(found.parent_w, cosine.argmax(axis=1))
    np.testing.assert_allclose(found.cosine_w, cosine.max(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.best_n, cosine.max(axis=0), rtol=1e-12)
