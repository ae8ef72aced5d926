"""The stage `control` from its parameters to its files, on trials of a few steps."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sae_repro.autoencoders import training_code
from sae_repro.compare.controls import write_control
from sae_repro.control import run
from sae_repro.control.held import HOOK, HeldStore
from sae_repro.control.job import WorldJob, jobs
from sae_repro.control.planned import Trial
from sae_repro.control.recipes import REVIVAL, TREE, TWO_ATOMS, trials
from sae_repro.control.trial import labels, make_world, silence_half
from sae_repro.errors import StudyError
from sae_repro.files import sha256_file, sha256_folder
from sae_repro.params import Control, Train
from sae_repro.params.axes import ACTIVATIONS
from sae_repro.stage import StageContext
from sae_repro.training import Trainer

TINY = {"seeds": 1, "tree_steps": 60, "oracle_steps": 20, "revival_steps": 60}
Go = Callable[..., Path]


@pytest.fixture(autouse=True)
def deterministic_only_here() -> Iterator[None]:
    """Trials switch torch to deterministic kernels for their process, which here is the tests'."""
    before = torch.get_deterministic_debug_mode()
    yield
    torch.set_deterministic_debug_mode(before)


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Runs the stage in a folder of its own, in this process; returns artifacts/control."""
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")
    monkeypatch.setattr("sae_repro.control.recipes.TWO_ATOMS_STEPS", 40)

    def stage(name: str = "study", *, seed: int = 0, **settings: Any) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        run(StageContext("control", {"seed": seed, "control": {**TINY, **settings}}))
        return tmp_path / name / "artifacts" / "control"

    return stage


def only(monkeypatch: pytest.MonkeyPatch, expected: list[Trial]) -> None:
    monkeypatch.setattr("sae_repro.control.trials", lambda settings: expected)


def one(world: str, recipe: str, settings: Control | None = None, **changes: Any) -> Trial:
    found = trials(settings or Control(**TINY))
    trial = next(t for t in found if t.name == world and t.recipe == recipe)
    return replace(trial, cell=trial.cell.model_copy(update=changes))


def test_every_activation_has_a_control_trial() -> None:
    tried = {choices.get("activation", "relu") for choices in TREE.values()}
    assert tried == set(ACTIVATIONS), "give each a recipe in control/recipes.py: TREE"


@pytest.mark.parametrize("recipe", ["vanilla", "topk"])
def test_silencing_kills_half_of_the_latents_and_no_more(recipe: str, tmp_path: Path) -> None:
    trial = one("half dead", recipe)
    _, samples = make_world(trial, 0, tmp_path)
    rows = samples["train"].x_nd
    store = HeldStore(rows, rows[:100])
    trainer = Trainer(
        trial.cell, Train(batch_size=200), store, HOOK, seed=0, checkpoint=tmp_path / "none"
    )

    def fires_k() -> torch.Tensor:
        code = training_code(trial.cell, trainer.weights, torch.from_numpy(rows), epsilon=0)
        return (code.z_nk > 0).any(0)

    assert fires_k().all()
    silence_half(trainer)
    assert fires_k().tolist() == [False] * 32 + [True] * 32


@pytest.mark.parametrize("settings", [Control(), Control(**TINY)], ids=["default", "tiny"])
def test_every_trial_trains_for_its_steps_and_width(settings: Control) -> None:
    for trial in trials(settings):
        rows_per_epoch = trial.rows // trial.batch_size
        assert trial.epochs * rows_per_epoch == pytest.approx(trial.steps, rel=0.5 / trial.epochs)
        widths = {"tree": 20, "two atoms": 3, "half dead": 64}
        name = trial.name.partition(" d=")[0]
        expected = widths[name] if name in widths else int(trial.name.removeprefix("oracle K="))
        assert trial.cell.width(trial.d_in) == expected


def test_worlds_come_in_the_order_of_the_settings() -> None:
    requests = ("revival", "two_atoms", "tree")
    found = trials(Control(worlds=requests, seeds=2))
    assert [world for world, _ in groupby(t.world for t in found)] == [
        "sparse",
        "two_atoms",
        "tree",
    ]
    assert {t.seed for t in found} == {0, 1}


def test_the_stage_writes_every_trial_the_same_twice_and_otherwise_for_another_seed(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in ("HELD_OUT", "CALIBRATION"):
        monkeypatch.setattr(f"sae_repro.control.trial.{size}", 2000)
    worlds = ["tree", "two_atoms", "revival"]
    folder = go("one", worlds=worlds)
    assert sha256_folder(folder) == sha256_folder(go("two", worlds=worlds))
    assert {p.name for p in folder.iterdir()} == {
        "trials.csv", "atoms.csv", "stability.csv", "heat.json", "contents.json"
    }  # fmt: skip

    table = pd.read_csv(folder / "trials.csv")
    expected = [(t.name, t.recipe) for t in trials(Control(**TINY)) if t.world != "oracle"]
    assert list(zip(table["world"], table["recipe"], strict=True)) == expected
    assert len(table) == len(TREE) + 2 + len(TWO_ATOMS) + len(REVIVAL)
    assert set(table["status"]) == {"ok"}
    assert table["matched_cosine"].between(-1, 1).all()
    of_tree = table["world"].str.startswith("tree")
    assert (table["hole_rate"].notna() == of_tree).all()
    assert (table["revived_fraction"].notna() == (table["world"] == "half dead")).all()
    is_topk = table["recipe"].isin(["topk", "batchtopk"]) & of_tree
    assert (table.loc[is_topk, "target_l0"] == 2).all()

    atoms = pd.read_csv(folder / "atoms.csv")
    mean = atoms.groupby(["world", "recipe"])["cosine"].mean()
    for row in table.to_dict("records"):
        same = mean[row["world"], row["recipe"]]
        assert same == pytest.approx(row["matched_cosine"])

    heat = json.loads((folder / "heat.json").read_text())
    assert {world: set(recipes) for world, recipes in heat.items()} == {
        "tree d=20": set(TREE),
        "tree d=30": {"vanilla", "matryoshka-random"},
    }
    shapes = {k: np.shape(v) for k, v in heat["tree d=30"]["vanilla"].items()}
    assert shapes == {"true": (64, 20), "learnt": (64, 20), "cosines": (20, 20)}

    other = pd.read_csv(go("three", worlds=worlds[1:], seed=1) / "trials.csv")
    assert (other["fvu"].to_numpy() != table.loc[~of_tree, "fvu"].to_numpy()).all()


@pytest.mark.filterwarnings("ignore:.* encountered in matmul")
def test_trials_that_share_a_world_have_the_outcomes_of_each_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae_repro.control.recipes.TWO_ATOMS_STEPS", 20)
    for size in ("HELD_OUT", "CALIBRATION"):
        monkeypatch.setattr(f"sae_repro.control.trial.{size}", 200)
    planned = trials(Control(**TINY, worlds=("two_atoms",)))
    failing = planned[1]
    planned[1] = replace(failing, cell=failing.cell.model_copy(update={"lr": 1e30}))
    (together,) = jobs(planned, 0, tmp_path, tmp_path)
    alone = [replace(together, trials=(t,), outs=(tmp_path / t.recipe,)) for t in planned]
    reported: list[int] = []
    line = together(reported.append)
    assert line.endswith(f"failed: {failing.recipe}")
    assert reported == sorted(reported)
    assert reported[-1] == together.steps
    for job, out in zip(alone, together.outs, strict=True):
        job(lambda step: None)
        assert out.read_bytes() == job.outs[0].read_bytes()


def test_every_trial_is_in_one_job_and_worlds_are_not_mixed(tmp_path: Path) -> None:
    planned = trials(Control())
    found = jobs(planned, 0, tmp_path, tmp_path)
    out_of = {out: t for job in found for t, out in zip(job.trials, job.outs, strict=True)}
    assert [out_of[tmp_path / f"{i}.json"] for i in range(len(planned))] == planned
    assert all(len({(t.name, t.seed, t.rows) for t in job.trials}) == 1 for job in found)
    assert len(found) < len(planned) / 3
    costs = [sum(t.cost for t in job.trials) for job in found]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.slow
def test_the_number_of_workers_changes_no_byte(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = sha256_folder(go(worlds=["two_atoms"]))
    stage = StageContext("control", {"seed": 0, "control": {**TINY, "worlds": ["two_atoms"]}})
    monkeypatch.setenv("SAE_REPRO_JOBS", "2")
    run(stage)
    assert sha256_folder(Path("artifacts/control")) == alone


@pytest.mark.parametrize("steps", [1, 399, 400, 401, 850, 2000])
def test_the_oracle_trains_for_its_steps(steps: int) -> None:
    trial = trials(Control(worlds=("oracle",), seeds=1, oracle_steps=steps))[0]
    done = trial.epochs * (trial.rows // trial.batch_size)  # as `Batches` counts
    assert trial.steps == done
    assert steps <= trial.steps < steps + trial.epochs
    assert trial.rows <= 400 * trial.batch_size


def test_each_seed_of_a_trial_and_of_the_study_is_another_world(tmp_path: Path) -> None:
    settings = Control(worlds=("tree",), seeds=2, tree_steps=5)
    first, second = (t for t in trials(settings) if t.recipe == "topk")
    requests = ((first, 0), (second, 0), (first, 1), (first, 0))
    worlds = [make_world(t, seed, tmp_path)[0].directions_fd for t, seed in requests]
    assert not np.array_equal(worlds[0], worlds[1])
    assert not np.array_equal(worlds[0], worlds[2])
    assert np.array_equal(worlds[0], worlds[3])


def test_stability_is_measured_over_the_seeds_of_each_recipe_of_the_tree(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in ("HELD_OUT", "CALIBRATION"):
        monkeypatch.setattr(f"sae_repro.control.trial.{size}", 1000)
    settings = Control(**{**TINY, "seeds": 2, "tree_steps": 30}, worlds=("tree", "two_atoms"))
    planned = [t for t in trials(settings) if t.recipe in ("topk", "vanilla")]
    failing = next(i for i, t in enumerate(planned) if (t.recipe, t.seed) == ("topk", 1))
    diverging = planned[failing].cell.model_copy(update={"lr": 1e30})
    planned[failing] = replace(planned[failing], cell=diverging)
    only(monkeypatch, planned)
    table = pd.read_csv(go() / "stability.csv")
    # two atoms are too few to find some of, and a failed seed leaves the other alone
    assert list(zip(table["world"], table["recipe"], strict=True)) == [
        ("tree d=20", "vanilla"),
        ("tree d=30", "vanilla"),
    ]
    assert (table["seeds"] == 2).all() and (table["latents"] > 20).all()
    assert (table["shared_recovered"] <= table["recovered"]).all()


def test_recipes_are_compared_on_one_and_the_same_world(tmp_path: Path) -> None:
    made = [make_world(one("half dead", recipe), 0, tmp_path) for recipe in ("topk", "vanilla")]
    for split in ("train", "held_out"):
        a, b = (samples[split].x_nd for _, samples in made)
        assert np.array_equal(a, b)


def test_training_and_held_out_rows_are_different_draws(tmp_path: Path) -> None:
    _, samples = make_world(one("half dead", "topk"), 0, tmp_path)
    n = min(len(s.x_nd) for s in samples.values())
    assert not np.array_equal(samples["train"].x_nd[:n], samples["held_out"].x_nd[:n])
    assert not np.array_equal(samples["calibration"].x_nd[:n], samples["held_out"].x_nd[:n])


def test_no_worlds_leave_empty_tables_and_no_report(go: Go, tmp_path: Path) -> None:
    folder = go(worlds=[])
    assert (folder / "trials.csv").read_text().strip() == ""
    assert (folder / "atoms.csv").read_text().strip() == ""
    assert (folder / "stability.csv").read_text().strip() == ""
    assert json.loads((folder / "heat.json").read_text()) == {}
    reports = tmp_path / "reports"
    reports.mkdir()
    write_control(reports, folder.parent)
    assert not list(reports.iterdir())


def test_the_oracle_is_left_out_where_text_has_no_labels(go: Go) -> None:
    table = pd.read_csv(go(worlds=["oracle", "two_atoms"]) / "trials.csv")
    assert set(table["world"]) == {"two atoms"}


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A corpus whose documents carry, in turn, the concept of their split and its two children.

    Concepts: a parent and two children per split, so that a label says where its token is from.
    """
    folder = tmp_path / "study" / "artifacts" / "corpus"
    folder.mkdir(parents=True)
    splits, per, documents = ("train", "calibration", "validation"), 12, 30
    concepts, split_of = [], np.arange(documents) % 3
    for split in splits:
        concepts.append({"name": split, "parent": None, "kind": "class"})
        concepts += [{"name": f"{split} {c}", "parent": split, "kind": "class"} for c in "ab"]
    on = np.zeros((documents, per, 9), dtype=bool)
    for number, s in enumerate(split_of):
        on[number, :, 3 * s] = True
        on[number, 0::3, 3 * s + 1] = True
        on[number, 1::3, 3 * s + 2] = True
    packed = np.packbits(on.reshape(-1, 9), axis=1, bitorder="little")
    np.save(folder / "labels.npy", packed)
    np.save(folder / "tokens.npy", np.zeros(documents * per, dtype=np.int32))
    frame = {"document": np.arange(documents), "start": np.arange(documents) * per, "length": per,
             "split": np.array(splits)[split_of]}  # fmt: skip
    pd.DataFrame(frame).to_parquet(folder / "documents.parquet")
    (folder / "concepts.json").write_text(json.dumps(concepts))
    return folder


def test_oracle_rows_are_tokens_of_their_own_split(labelled: Path) -> None:
    for number, split in enumerate(("train", "calibration", "validation")):
        on = labels(labelled, split, 3000, 9, np.random.default_rng(0))
        mine = on[:, 3 * number : 3 * number + 3]
        assert on.shape == (3000, 9)
        assert mine.sum() == on.sum()
        assert mine.mean(0) == pytest.approx([1, 1 / 3, 1 / 3], abs=0.03)
        assert not (mine[:, 1] & mine[:, 2]).any()
        # drawn in random order, not document by document
        assert abs(np.corrcoef(mine[:-1, 1], mine[1:, 1])[0, 1]) < 0.1


def test_the_oracle_knows_the_parents_of_the_concepts(labelled: Path) -> None:
    atoms, samples = make_world(one("oracle K=128", "topk"), 0, labelled)
    assert atoms.parent_f.tolist() == [-1, 0, 0, -1, 3, 3, -1, 6, 6]
    assert samples["train"].a_nf[:, 0].all()
    assert samples["held_out"].a_nf[:, 6].all()
    assert samples["train"].x_nd.shape == (20 * 256, 64)


def test_seeds_of_a_trial_have_the_same_oracle_and_read_other_rows(labelled: Path) -> None:
    first, second = (
        t for t in trials(Control(**{**TINY, "seeds": 2}, worlds=("oracle",)))
        if (t.name, t.recipe) == ("oracle K=128", "topk")
    )  # fmt: skip
    made = [make_world(t, seed, labelled) for t, seed in ((first, 0), (second, 0), (first, 1))]
    directions = [atoms.directions_fd for atoms, _ in made]
    assert np.array_equal(directions[0], directions[1])
    assert not np.array_equal(directions[0], directions[2])
    assert not np.array_equal(made[0][1]["train"].x_nd, made[1][1]["train"].x_nd)


def test_a_trial_that_diverges_is_a_row_and_the_others_finish(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("vanilla", "batchtopk", "gated")
    expected = [one("two atoms", name) for name in names]
    expected[0] = one("two atoms", "vanilla", lr=1e3)
    only(monkeypatch, expected)
    folder = go()
    table = pd.read_csv(folder / "trials.csv").set_index("recipe")
    assert table["status"].to_dict() == {"vanilla": "failed", "batchtopk": "ok", "gated": "ok"}
    assert "from step" in table["reason"]["vanilla"]
    assert table["reason"][["batchtopk", "gated"]].isna().all()
    assert np.isnan(table["fvu"]["vanilla"])
    assert set(pd.read_csv(folder / "atoms.csv")["recipe"]) == {"batchtopk", "gated"}


def test_a_job_leaves_its_outcomes_in_a_folder_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine, which has nothing of the stage's own folder."""
    monkeypatch.chdir(tmp_path)
    out = Path(".sae-repro/tmp/0.json")
    trial = one("two atoms", "batchtopk")
    assert WorldJob((trial,), 0, Path("corpus"), (out,))(lambda step: None).endswith("ok")
    assert json.loads(out.read_text())["status"] == "ok"
    assert out.with_suffix(".npz").is_file()


@pytest.fixture
def tried(tmp_path: Path) -> Callable[[Trial], dict[str, float]]:
    def go(trial: Trial) -> dict[str, float]:
        out = tmp_path / "out.json"
        WorldJob((trial,), 0, tmp_path, (out,))(lambda step: None)
        summary: dict[str, float] = json.loads(out.read_text())["summary"]
        return summary

    return go


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_published_contrast_is_reproduced(
    seed: int, tried: Callable[[Trial], dict[str, float]]
) -> None:
    """Vanilla leaves a hole in every parent, Matryoshka in none; revival revives.

    At the default learning rate a few dead latents of TopK come back by themselves, and resampling
    misses some: reports/tables/control.md has both as "not observed" at their stricter bounds.
    """
    found = {(t.name, t.recipe): t for t in trials(Control()) if t.seed == seed}
    hole = {name: tried(found["tree d=20", name]) for name in ("vanilla", "matryoshka-random")}
    assert hole["vanilla"]["hole_rate"] >= 0.9
    assert hole["vanilla"]["parent_childless_recall"] >= 0.9  # trained enough to find the parent
    assert hole["matryoshka-random"]["hole_rate"] <= 0.1
    revived = {
        name: tried(found["half dead", name])["revived_fraction"]
        for name in ("vanilla", "topk", "vanilla + resample", "topk + auxk")
    }
    assert revived["vanilla"] == 0
    assert revived["topk"] <= 0.25
    assert revived["vanilla + resample"] >= 0.75
    assert revived["topk + auxk"] >= 0.9


def test_a_world_is_tried_that_no_code_knows(go: Go, tmp_path: Path) -> None:
    """By a spec file alone; of another seed it is another one."""
    (tmp_path / "study" / "worlds").mkdir(parents=True)
    path = tmp_path / "study" / "worlds" / "mine.yaml"
    path.write_text(
        "atoms: 12\nd_in: 8\nfrequencies: {highest: 0.3, lowest: 0.1}\n"
        "hierarchy: {roots: 3, branching: 3, depth: 1}\ncircles: {count: 1}\n"
        "saes: {recipes: [topk, frozen-decoder], widths: [8, 16], steps: 30, batch_size: 16}\n"
    )
    world = {"path": "worlds/mine.yaml", "sha256": sha256_file(path)}
    table = pd.read_csv(go(worlds=[world], seeds=2) / "trials.csv")
    assert set(table["world"]) == {"mine"} and set(table["status"]) == {"ok"}
    assert table.groupby(["method", "width"])["seed"].nunique().tolist() == [2] * 4
    shown = ["mcc", "latent_f1", "hedging", "l0_ratio", "hole_rate", "latents_per_circle"]
    assert table[shown].notna().all(axis=None)
    assert table["mcc"].between(0, 1).all() and table["mcc"].nunique() == len(table)
    path.write_text(path.read_text() + "noise: 0.1\n")
    with pytest.raises(StudyError, match=r"worlds/mine\.yaml"):
        go(worlds=[world])
