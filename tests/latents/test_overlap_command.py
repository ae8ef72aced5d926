"""The command `overlap` on a study's cells, against `compare` and against dense codes."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from sae_repro.autoencoders import load
from sae_repro.cli import app
from sae_repro.compare.collect import collect
from sae_repro.compare.widths.ladders import ladders
from sae_repro.compare.widths.measured import Dictionaries, relation_rows
from sae_repro.compare.widths.relations import KINDS
from sae_repro.contents import seal
from sae_repro.errors import StudyError
from sae_repro.evaluate.held_out import validation_batches
from sae_repro.files import read_json, write_json
from sae_repro.latents.overlapping import LEAST
from sae_repro.params import load as load_study
from sae_repro.readers.joined import LevelledStore

from ..pipeline.conftest import small_text
from ..pipeline.in_process import carry_out, study

TOPK = {"activation": "topk", "k": 3}
CELLS = {
    **{f"x{n}": {**TOPK, "expansion": n, "seeds": [0, 1, 2]} for n in (1, 2, 4)},
    "one": {**TOPK, "expansion": 4, "activation": "batchtopk"},
    "elsewhere": {**TOPK, "expansion": 4, "hook": "blocks.1.hook_resid_pre"},
    "pca": {"baseline": "pca"},
    "untrained": {**TOPK, "expansion": 8},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study after `evaluate`; one cell was added since. Read it only."""
    folder = tmp_path_factory.mktemp("overlapping")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SAE_REPRO_JOBS", "1")
        declared = study(small_text(folder / "text.jsonl"))
        declared["cells"] = {name: cell for name, cell in CELLS.items() if name != "untrained"}
        declared["evaluate"]["metrics"] = []
        carry_out(declared, "corpus", "subject", "extract", "train", "evaluate")
    write_json(folder / "params.yaml", {**declared, "cells": CELLS})
    return folder


def run(folder: Path, *arguments: str) -> str:
    done = CliRunner().invoke(
        app, ["overlap", *arguments, "--study", str(folder)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.output


def test_a_ladder_is_measured_as_compare_measures_it(finished: Path, tmp_path: Path) -> None:
    output = run(finished, "x1", "x2", "x4", "--to", str(tmp_path / "out"))
    assert "600 held-out tokens" in output and "K 8 → 16: x1 → x2" in output
    steps = pd.read_csv(tmp_path / "out/steps.csv")
    cells = load_study(finished / "params.yaml").cells
    cells = {name: cell for name, cell in cells.items() if name.startswith("x")}
    [ladder] = ladders(collect(cells, finished / "artifacts"))
    wanted = [row for row in relation_rows(ladder, Dictionaries(), 0) if row["neighbours"] == "yes"]
    for (_, step), row in zip(steps.iterrows(), wanted, strict=True):
        for name in KINDS:
            assert step[f"cosine_{name}"] == pytest.approx(row[name])
            assert step[f"cosine_{name}_same_width"] == pytest.approx(row[f"{name}_same_width"])
        assert step[[f"overlap_{name}" for name in KINDS]].sum() == pytest.approx(1)
        assert step["pairs"] == 6 and step["l0_wide"] == pytest.approx(3, abs=0.01)
        assert step["overlap_new_low"] <= step["overlap_new"] <= step["overlap_new_high"]
        assert step["overlap_new_shuffled"] > step["overlap_new"]
        assert step["jaccard_shuffled"] < step["jaccard"]


def test_the_table_has_every_latent_as_dense_codes_have_it(finished: Path, tmp_path: Path) -> None:
    run(finished, "x1", "x4", "--to", str(tmp_path / "out"), "--trees", "0")
    latents = pd.read_parquet(tmp_path / "out/latents.parquet")
    store = LevelledStore(finished / "artifacts/extract")
    hook = read_json(finished / "artifacts/train/x1/seed-0/train.json")["hook"]
    x_nd = torch.cat([x for x, _ in validation_batches(store, hook, 100, "cpu")])
    fires: dict[str, np.ndarray] = {}
    for cell in ("x1", "x4"):
        name = f"{cell}/seed-0"
        fires[cell] = (load(finished / "artifacts/train" / name).encode(x_nd) > 0).numpy()
        own = latents[latents["sae"] == name].set_index("latent")["tokens"]
        evaluated = pd.read_parquet(finished / "artifacts/evaluate" / name / "latents.parquet")
        fired = evaluated.set_index("latent")["n_fired"]
        assert own.sort_index().to_dict() == fired[fired > 0].to_dict()
    wide = latents[latents["sae"] == "x4/seed-0"]
    assert (wide["kind_overlap"] == "rare").equals(wide["tokens"] < LEAST)
    children = wide.dropna(subset=["parent"])
    assert len(children) and set(children["kind_overlap"]) <= {"split", "copy"}
    for row in children.to_dict("records"):
        w, n = fires["x4"][:, row["latent"]], fires["x1"][:, int(row["parent"])]
        assert row["containment"] == pytest.approx((w & n).sum() / w.sum())
        assert row["jaccard"] == pytest.approx((w & n).sum() / (w | n).sum())
        assert row["beyond_chance"] == pytest.approx((n[w].mean() - n.mean()) / (1 - n.mean()))
        assert row["beyond_chance"] >= 0.5
        parent = latents[(latents["sae"] == "x1/seed-0") & (latents["latent"] == row["parent"])]
        assert parent["tree"].item() == row["tree"]
    siblings = children.groupby("parent")["kind_overlap"].agg(["size", "unique"])
    for size, found in siblings.itertuples(index=False):
        assert found.tolist() == ["copy" if size == 1 else "split"]


def test_trees_are_printed_from_width_to_width(finished: Path) -> None:
    output = run(finished, "x1", "x2", "x4", "--containment", "0.2", "--trees", "1")
    tree = output[output.index("tree 1: ") :].splitlines()
    assert tree[1].startswith("K 8 latent ") or tree[1].startswith("  K 16 latent ")
    assert any(line.startswith("    K 32 latent ") and "contained" in line for line in tree)
    assert "tree 2" not in output


def test_one_seed_has_no_interval_and_no_other_seed_beside_it(
    finished: Path, tmp_path: Path
) -> None:
    output = run(finished, "x1/seed-1", "one", "--to", str(tmp_path / "out"))
    step: dict[str, Any] = pd.read_csv(tmp_path / "out/steps.csv").iloc[0].to_dict()
    assert step["narrow"] == "x1/seed-1" and step["pairs"] == 1 and "1 pair of seeds" in output
    assert math.isnan(step["overlap_new_low"]) and math.isnan(step["overlap_new_same_width"])
    assert step["overlap_new_shuffled"] > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x1"], "name two cells at least"),
        (["x1", "x1"], "name two cells at least"),
        (["x1", "x3"], "x3: no such cell"),
        (["x1", "untrained"], "untrained: not trained yet"),
        (["x1", "pca"], r"pca: a baseline \(pca\) has no latents that training found"),
        (["x1", "elsewhere"], "x1/seed-0 is of blocks.0.hook_resid_post, elsewhere of blocks.1"),
        (["x2", "x1"], "x1/seed-0 has 8 latents, x2/seed-0 before it 16; name cells by rising"),
    ],
)
def test_faults_say_what_to_do(finished: Path, arguments: list[str], says: str) -> None:
    with pytest.raises(StudyError, match=says):
        run(finished, *arguments)


def test_what_is_there_is_not_written_over(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StudyError, match="not an empty folder"):
        run(finished, "x1", "x2", "--to", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_missing_and_failed_evaluations_are_named(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "study")
    path = folder / "artifacts/train/x2/seed-1/train.json"
    write_json(path, read_json(path) | {"status": "failed", "reason": "loss is NaN"})
    seal(path.parent)
    output = run(folder, "x1", "x2", "--trees", "0")
    assert "x2/seed-1: its training failed, left out" in output and "2 pairs of seeds" in output
    (folder / "artifacts/evaluate/x1/seed-0/metrics.json").unlink()
    with pytest.raises(StudyError, match=r"x1/seed-0: not evaluated yet .*run `dvc repro` first"):
        run(folder, "x1", "x2")
    shutil.rmtree(folder / "artifacts/extract")
    with pytest.raises(StudyError, match=r"artifacts/extract: missing; .*extract"):
        run(folder, "x2", "x4")
