"""From the controls' trials to tables, sentences and figures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sae_repro.compare.controls import findings, heat_maps, over_seeds, read_trials, write_control
from sae_repro.compare.tables import with_interval
from sae_repro.files import sha256_folder
from sae_repro.numerics.intervals import student_fraction

HOLES = {
    ("tree d=20", "vanilla"): [1.0, 0.97, 0.99],
    ("tree d=20", "matryoshka-random"): [0.0, 0.02, 0.05],
}


def frame(values: dict[tuple[str, str], list[float]], metric: str = "hole_rate") -> pd.DataFrame:
    """trials.csv with `metric` per world and recipe, a row per seed; NaN is a failed trial."""
    rows = [
        {"world": world, "recipe": recipe, "seed": seed, "target_l0": np.nan, metric: value,
         "status": "ok" if value == value else "failed",
         "reason": None if value == value else "diverged"}
        for (world, recipe), of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def sentences_of(trials: pd.DataFrame) -> list[str]:
    return list(findings(trials, over_seeds(trials)))


def test_means_over_seeds_have_the_95_percent_t_interval() -> None:
    values = [0.31, 0.42, 0.27, 0.55]
    row = over_seeds(frame({("tree d=20", "vanilla"): values}, "fvu")).iloc[0]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert row["fvu"] == pytest.approx(np.mean(values))
    assert row["fvu_low"] == pytest.approx(low)
    assert row["fvu_high"] == pytest.approx(high)
    # by hand: t(.975, 3) = 3.1824
    assert high - np.mean(values) == pytest.approx(3.1824 * np.std(values, ddof=1) / 2, rel=1e-4)
    assert (row["seeds"], row["failed"]) == (4, 0)


def test_intervals_of_fractions_and_cosines_stay_in_their_range() -> None:
    """Student's t of these seeds reaches from -0.13 to 0.70, and to 1.22."""
    trials = frame({("tree d=20", "topk"): [0.1, 0.25, 0.5], ("tree d=30", "topk"): [1, 0.9, 0.5]})
    table = over_seeds(trials.assign(matched_cosine=trials["hole_rate"]))
    for metric in ("hole_rate", "matched_cosine"):
        assert (table[f"{metric}_high"] <= 1).all()
        assert (table[f"{metric}_low"] < table[metric]).all()
    assert (table["hole_rate_low"] >= 0).all()
    _, low, high = student_fraction([0.1, 0.25, 0.5])
    assert table.loc[0, ["hole_rate_low", "hole_rate_high"]].tolist() == [low, high]


def test_one_seed_has_a_mean_and_no_interval() -> None:
    row = over_seeds(frame({("tree d=20", "vanilla"): [0.9]})).iloc[0]
    assert row["hole_rate"] == 0.9
    assert row[["hole_rate_low", "hole_rate_high"]].isna().all()


def test_a_failed_trial_is_counted_and_left_out_of_the_mean() -> None:
    trials = frame({("tree d=20", "vanilla"): [0.9, np.nan, 1.0]})
    row = over_seeds(trials).iloc[0]
    assert (row["seeds"], row["failed"]) == (3, 1)
    assert row["hole_rate"] == pytest.approx(0.95)
    assert row["hole_rate_low"] == student_fraction([0.9, 1.0])[1]


def test_a_measure_that_no_trial_has_is_absent() -> None:
    row = over_seeds(frame({("two atoms", "vanilla"): [0.99, 1.0]}, "matched_cosine")).iloc[0]
    assert row["matched_cosine"] == pytest.approx(0.995)
    assert row[["hole_rate", "hole_rate_low", "revived_fraction"]].isna().all()


EXPECTED = [
    ("tree d=20", "vanilla", "hole_rate", [0.9, 1.0], [0.89, 1.0]),
    ("tree d=30", "vanilla", "hole_rate", [0.9, 1.0], [0.89, 1.0]),
    ("tree d=20", "matryoshka-random", "hole_rate", [0.1, 0.0], [0.11, 0.0]),
    ("two atoms", "vanilla", "matched_cosine", [0.99, 1.0], [0.98, 1.0]),
    ("half dead", "vanilla", "revived_fraction", [0.0, 0.0], [0.0, 0.03]),
    ("half dead", "topk", "revived_fraction", [0.0, 0.0], [0.0, 0.03]),
    ("half dead", "vanilla + resample", "revived_fraction", [0.9, 1.0], [0.89, 1.0]),
    ("half dead", "topk + resample", "revived_fraction", [0.9, 1.0], [0.89, 1.0]),
    ("half dead", "topk + auxk", "revived_fraction", [0.9, 1.0], [0.89, 1.0]),
]


@pytest.mark.parametrize(
    ("world", "recipe", "metric", "within", "outside"),
    EXPECTED,
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_expectation_is_observed_only_if_every_seed_meets_the_bound(
    world: str, recipe: str, metric: str, within: list[float], outside: list[float]
) -> None:
    (sentence,) = sentences_of(frame({(world, recipe): within}, metric))
    assert sentence.startswith(f"{world}, {recipe} ")
    assert "**observed**" in sentence
    assert "2 of 2 seeds" in sentence
    (sentence,) = sentences_of(frame({(world, recipe): outside}, metric))
    assert "**not observed**" in sentence
    assert "1 of 2 seeds" in sentence


def test_a_failed_seed_is_not_an_observation() -> None:
    (sentence,) = sentences_of(frame({("tree d=20", "vanilla"): [1.0, np.nan]}))
    assert "**not observed**" in sentence
    assert "1 of 2 seeds: 1.00, —" in sentence


def test_worlds_and_recipes_without_trials_get_no_finding() -> None:
    assert not sentences_of(frame({("tree d=20", "gated"): [0.5]}))
    assert len(sentences_of(frame(HOLES))) == 2


@pytest.mark.parametrize(
    ("matryoshka", "verdict"),
    [([0.50, 0.51, 0.52], ": different."), ([0.10, 0.30, 0.60], ": not distinguishable.")],
)
def test_parents_of_the_oracle_are_compared_by_their_intervals(
    matryoshka: list[float], verdict: str
) -> None:
    recipes = {("oracle K=32", "vanilla"): [0.20, 0.21, 0.22],
               ("oracle K=32", "matryoshka-random"): matryoshka}  # fmt: skip
    (sentence,) = sentences_of(frame(recipes, "parent_recall"))
    assert sentence.startswith("oracle K=32: recall of the parents, vanilla 0.210 [")
    assert sentence.endswith(verdict)


@pytest.fixture
def artifacts(tmp_path: Path) -> Callable[..., Path]:
    """Writes what the stage leaves in artifacts/control; returns artifacts."""

    def go(
        trials: pd.DataFrame,
        heat: dict[str, Any] | None = None,
        stable: list[dict[str, Any]] | None = None,
    ) -> Path:
        folder = tmp_path / "artifacts" / "control"
        folder.mkdir(parents=True)
        trials.to_csv(folder / "trials.csv", index=False)
        atoms = [
            {"world": row["world"], "recipe": row["recipe"], "seed": row["seed"], "atom": atom,
             "parent": parent, "cosine": 0.5 + row["seed"] / 10, "precision": 1.0, "recall": 0.5,
             "f1": 0.6, "hole_rate": None if parent else row["hole_rate"]}
            for row in trials[trials["status"] == "ok"].to_dict("records")
            for atom, parent in (("parent 0", None), ("child 0.0", "parent 0"))
        ]  # fmt: skip
        pd.DataFrame(atoms).to_csv(folder / "atoms.csv", index=False)
        pd.DataFrame(stable or []).to_csv(folder / "stability.csv", index=False)
        (folder / "heat.json").write_text(json.dumps(heat or {}))
        return tmp_path / "artifacts"

    return go


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    (tmp_path / "reports").mkdir()
    return tmp_path / "reports"


def test_the_tables_hold_the_numbers(artifacts: Callable[..., Path], reports: Path) -> None:
    values = HOLES | {("tree d=30", "vanilla"): [0.9, np.nan, 0.95]}
    write_control(reports, artifacts(frame(values)))
    table = pd.read_csv(reports / "control.csv").set_index(["world", "recipe"])
    assert table["hole_rate"].to_dict() == pytest.approx(
        {key: np.nanmean(of_seeds) for key, of_seeds in values.items()}
    )
    text = (reports / "control.md").read_text()
    _, low, high = student_fraction(HOLES["tree d=20", "vanilla"])
    assert f"| {with_interval(float(np.mean(HOLES['tree d=20', 'vanilla'])), (low, high))} " in text
    assert "| 3 (1 failed) " in text
    assert "tree d=20, vanilla leaves a hole in every parent: **observed**" in text
    assert "tree d=30, vanilla leaves a hole in every parent: **not observed**" in text
    atoms = pd.read_csv(reports / "control_atoms.csv").set_index(["world", "recipe", "atom"])
    assert len(atoms) == 6
    assert atoms.loc[("tree d=20", "vanilla", "parent 0"), "cosine"] == pytest.approx(0.6)
    assert atoms.loc[("tree d=30", "vanilla", "parent 0"), "hole_rate"] == pytest.approx(0.925)
    assert np.isnan(atoms.loc[("tree d=30", "vanilla", "child 0.0"), "hole_rate"])


def test_control_md_says_where_stability_predicts_recovery(
    artifacts: Callable[..., Path], reports: Path
) -> None:
    def row(recipe: str, auc: tuple[float, float, float] | tuple[None, None, None]) -> dict:
        ends = zip(("", "_low", "_high"), auc, strict=True)
        return {"world": "tree d=20", "recipe": recipe, "seeds": 3, "latents": 60,
                "recovered": 45, "shared": 50, "shared_recovered": 44,
                **{f"stability_auc{end}": value for end, value in ends}}  # fmt: skip

    stable = [row("topk", (0.5, 0.4, 0.6)), row("gated", (0.97, 0.95, 0.99)),
              row("vanilla", (0.9, 0.8, 1.0)), row("jumprelu", (None, None, None))]  # fmt: skip
    write_control(reports, artifacts(frame(HOLES), stable=stable))
    text = (reports / "control.md").read_text()
    assert (
        "tree d=20: an AUC of 0.9 is reached in 1 of 3 recipes (gated), missed in 1 (topk), "
        "undecided in the others"
    ) in text
    (line,) = (line for line in text.splitlines() if line.startswith("| tree d=20 | gated "))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3:] == ["60", "45 of 60 (0.750)", "0.970 [0.950, 0.990]", "44 of 50 (0.880)",
                         "1 of 10 (0.100)"]  # fmt: skip
    assert len(pd.read_csv(reports / "control_stability.csv")) == 4


def test_no_trials_make_no_table(artifacts: Callable[..., Path], reports: Path) -> None:
    folder = artifacts(frame(HOLES))
    (folder / "control" / "trials.csv").write_text("\n")
    assert read_trials(folder / "control").empty
    write_control(reports, folder)
    assert not list(reports.iterdir())


def test_a_control_in_which_everything_failed_still_has_its_table(
    artifacts: Callable[..., Path], reports: Path
) -> None:
    trials = frame({("tree d=20", "vanilla"): [np.nan, np.nan]}).drop(columns="hole_rate")
    write_control(reports, artifacts(trials))
    assert "| 2 (2 failed) " in (reports / "control.md").read_text()


def heat() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        world: {
            recipe: {"true": rng.integers(0, 2, (64, 20)).tolist(),
                     "learnt": rng.random((64, 20)).tolist(),
                     "cosines": rng.uniform(-1, 1, (20, 20)).tolist()}
            for recipe in recipes
        }
        for world, recipes in (("tree d=20", ("vanilla", "topk", "matryoshka-random")),
                               ("tree d=30", ("vanilla",)))
    }  # fmt: skip


def test_heat_maps_are_drawn_of_each_tree_the_same_bytes_twice(
    artifacts: Callable[..., Path], tmp_path: Path
) -> None:
    folder = artifacts(frame(HOLES), heat())
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        heat_maps(tmp_path / name, folder)
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [
        f"control_tree_d{d}.{ending}" for d in (20, 30) for ending in ("pdf", "png", "svg")
    ]
    assert (tmp_path / "one/control_tree_d20.png").read_bytes().startswith(b"\x89PNG")
    assert sha256_folder(tmp_path / "one") == sha256_folder(tmp_path / "two")
    svg = [(tmp_path / f"one/control_tree_d{d}.svg").read_bytes() for d in (20, 30)]
    assert svg[0] != svg[1]


def test_without_trees_there_are_no_heat_maps(
    artifacts: Callable[..., Path], reports: Path
) -> None:
    heat_maps(reports, artifacts(frame(HOLES)))
    assert not list(reports.iterdir())
