"""Imported cells: made under the threads and kernels that the study sets, as all others."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sae_repro.autoencoders import SAE, Weights, save
from sae_repro.errors import StudyError
from sae_repro.files import read_json
from sae_repro.params import Cell
from sae_repro.pins import model_digest
from sae_repro.preflight import import_problems, imported_widths
from sae_repro.stage import StageContext
from sae_repro.train import run

D = 8


def test_an_imported_cell_is_made_under_the_studys_threads(
    make_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(name="artifacts/extract", d_in=D)
    (tmp_path / "theirs").mkdir()
    identity = Weights(torch.eye(D), torch.zeros(D), torch.eye(D), torch.zeros(D))
    save(SAE("standard", identity), tmp_path / "theirs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAE_REPRO_NO_STORE", "1")  # in this process
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        cell = {"import": "theirs", "sha256": model_digest(tmp_path / "theirs")}
        settings = {"batch_size": 64, "epochs": 1, "threads": 1}
        run(
            StageContext(
                "train", {"seed": 0, "train": settings, "recipes": {}, "cells": {"theirs": cell}}
            )
        )
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert read_json(Path("artifacts/train/theirs/train.json"))["status"] == "ok"


def test_check_refuses_an_imported_sae_that_train_could_not_read(tmp_path: Path) -> None:
    identity = Weights(torch.eye(D), torch.zeros(D), torch.eye(D), torch.zeros(D))
    (tmp_path / "theirs").mkdir()
    save(SAE("standard", identity), tmp_path / "theirs")
    cells = {
        "own": Cell(import_="theirs", sha256="0" * 64),
        "hub": Cell(import_="release:id", sha256="0" * 64),
    }
    assert imported_widths(cells, tmp_path) == {"own": D}
    assert (
        import_problems({"own": D}, {"own": D}) == import_problems({"own": D}, {"own": None}) == []
    )
    (problem,) = import_problems({"own": D}, {"own": D + 1})
    assert problem.startswith("cells.own.import: an SAE on 8 dimensions, the model has 9")
    identity.W_enc[0, 1] = float("nan")
    save(SAE("standard", identity), tmp_path / "theirs")
    with pytest.raises(StudyError, match=r"cells\.own\.import: .*W_enc has 1 of 64 values"):
        imported_widths(cells, tmp_path)
