"""A cell with several seeds: a folder each, the same SAEs as cells with one seed alone."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sae_repro.contents import seal
from sae_repro.files import read_json, sha256_file, sha256_folder, write_json
from sae_repro.stage import StageContext
from sae_repro.train import run

TRAIN = {"batch_size": 64, "epochs": 1}
TOPK = {"expansion": 2, "activation": "topk", "k": 2}


@pytest.fixture
def stage(
    make_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Runs the stage with `cells`; the folder of one of them."""
    make_store(name="artifacts/extract", train=1024)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")

    def go(name: str, cells: dict[str, Any]) -> Path:
        run(StageContext("train", {"seed": 0, "train": TRAIN, "recipes": {}, "cells": cells}))
        return Path("artifacts/train") / name

    return go


def members(folder: Path) -> list[str]:
    """The places of a cell's SAEs on disk, by seed."""
    seeds = sorted(int(path.name.removeprefix("seed-")) for path in folder.glob("seed-*"))
    return [f"seed-{seed}" for seed in seeds] or ["."]


def weights(folder: Path) -> str:
    return sha256_file(folder / "sae_weights.safetensors")


def finished() -> int:
    return sum(path.is_dir() for path in Path(".sae-repro/cells").iterdir())


def test_each_seed_is_the_sae_of_a_cell_with_that_seed(stage: Callable[..., Path]) -> None:
    cells = {"alone": {**TOPK, "seed": 2}, "several": {**TOPK, "seeds": [0, 2]}}
    alone, several = (stage(name, cells) for name in ("alone", "several"))
    assert members(alone) == ["."]
    assert members(several) == ["seed-0", "seed-2"]
    assert weights(several / "seed-2") == weights(alone)
    assert weights(several / "seed-0") != weights(alone)
    summaries = [read_json(f / "train.json") for f in (alone, several / "seed-2")]
    assert summaries[0].pop("cell") == "alone" and summaries[1].pop("cell") == "several"
    assert summaries[0] == summaries[1]
    assert finished() == 2


def test_a_seed_that_is_added_trains_alone_and_one_taken_away_is_gone(
    stage: Callable[..., Path],
) -> None:
    first = stage("topk", {"topk": TOPK})
    was, count = weights(first), finished()
    stage("topk", {"topk": {**TOPK, "seeds": [0, 1]}})
    assert finished() == count + 1
    assert not (first / "train.json").exists()
    assert weights(first / "seed-0") == was
    stage("topk", {"topk": {**TOPK, "seeds": [1, 10, 2]}})
    assert members(first) == ["seed-1", "seed-2", "seed-10"]
    stage("topk", {"topk": TOPK})
    assert (weights(first), members(first)) == (was, ["."])


def test_every_seed_of_every_cell_is_trained(stage: Callable[..., Path]) -> None:
    stage("a", {"a": TOPK, "b": {**TOPK, "k": 3, "seeds": [0, 1]}, "n": {"baseline": "neurons"}})
    assert finished() == 4


def test_files_that_belong_to_no_cell_are_deleted(stage: Callable[..., Path]) -> None:
    folder = stage("topk", {"topk": TOPK})
    was = sha256_folder(folder)
    (folder / "stray").mkdir()
    (folder / "stray/file").touch()
    assert sha256_folder(stage("topk", {"topk": TOPK})) == was


def test_seeds_are_the_same_without_the_store(
    stage: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = {"several": {**TOPK, "seeds": [0, 1]}}
    stored = stage("several", cells)
    one = {place: weights(stored / place) for place in members(stored)}
    monkeypatch.setenv("SAE_REPRO_NO_STORE", "1")
    shutil.rmtree(stored)
    again = stage("several", cells)
    assert {place: weights(again / place) for place in members(again)} == one


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_cell_is_trained_again_where_only_the_scale_of_its_activations_changes(
    stage: Callable[..., Path], factor: float
) -> None:
    cells = {"a": TOPK}
    before = weights(stage("a", cells))
    manifest = read_json(Path("artifacts/extract/manifest.json"))
    for hook in manifest["hooks"].values():
        hook["median_norm"] *= factor
    write_json(Path("artifacts/extract/manifest.json"), manifest)
    seal(Path("artifacts/extract"))
    assert (weights(stage("a", cells)) == before) == (factor == 1.0)
