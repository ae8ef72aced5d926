"""Figures: the same bytes from the same numbers, with the grid and without, of any study."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from optuna.trial import FrozenTrial

from sae_repro.files import sha256_folder
from sae_repro.params import Tune
from sae_repro.tune.asking import ask_batch
from sae_repro.tune.figures import write_figures
from sae_repro.tune.telling import Told, finished_trial, told_of
from sae_repro.tune.trial import Outcome

from .conftest import SPACE


def made_up(tune: Tune) -> tuple[list[FrozenTrial], list[Told]]:
    rng = np.random.default_rng(0)
    trials = []
    for asked in ask_batch(tune, "x", [], 12):
        metrics = {"l0": float(rng.uniform(2, 9)), "fvu": float(rng.uniform(0.1, 1))}
        failed = asked.number == 4
        measured = {"metrics": {} if failed else metrics, "intervals": {}, "counts": {}}
        outcome = Outcome("failed" if failed else "ok", measured, {}, {}, "diverged")
        trials.append(finished_trial(tune, asked, f"{asked.number}", outcome))
    told = [told_of(trial) for trial in trials]
    return trials, told


@pytest.mark.parametrize("objectives", [{"l0": "minimize", "fvu": "minimize"}, {"fvu": "minimize"}])
def test_figures_are_the_same_bytes(objectives: dict[str, str], tmp_path: Path) -> None:
    tune = Tune.model_validate(
        {**SPACE, "objectives": objectives, "constraints": {"l0": 6}, "batch": 12}
    )
    grid = tmp_path / "cells.csv"
    pd.DataFrame(
        {"status": ["ok", "failed"], "hook": "h", "l0": [3.0, None], "fvu": [0.2, None]}
    ).to_csv(grid, index=False)
    folders = [tmp_path / name for name in ("a", "b", "without")]
    for folder in folders:
        folder.mkdir()
        beside = tmp_path / "none" if folder.name == "without" else grid
        write_figures(folder, tune, *made_up(tune), grid=beside)
    assert sha256_folder(folders[0]) == sha256_folder(folders[1])
    assert sha256_folder(folders[0], pattern="front*") != sha256_folder(
        folders[2], pattern="front*"
    )
    assert sorted(p.name for p in folders[0].iterdir()) == [
        f"{name}.{kind}"
        for name in ("front", "history", "importance", "slice")
        for kind in ("png", "svg")
    ]


def test_without_a_finished_trial_there_is_nothing_to_draw(tmp_path: Path) -> None:
    tune = Tune.model_validate(SPACE)
    write_figures(tmp_path, tune, [], [], grid=tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
