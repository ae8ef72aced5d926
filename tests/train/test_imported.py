"""Imported cells: made under the threads and kernels that the study sets, as all others."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sae_repro.autoencoders import SAE, Weights, save
from sae_repro.files import read_json
from sae_repro.pins import model_digest
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
