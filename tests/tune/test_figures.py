"""Figures: the same bytes from the same numbers, with the grid and without, of any study."""

from pathlib import Path

import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial

from sae_repro.files import sha256_folder
from sae_repro.params import Tune
from sae_repro.tune.figures import front, write_figures
from sae_repro.tune.job import Outcome
from sae_repro.tune.proposals import propose_batch
from sae_repro.tune.records import TrialRecord, finished_trial, record_of
from sae_repro.tune.space import completed, parts_of

from .conftest import SPACE


def made_up(tune: Tune) -> tuple[list[FrozenTrial], list[TrialRecord]]:
    rng = np.random.default_rng(0)
    trials = []
    for proposal in propose_batch(tune, "x", [], 12 * max(1, len(parts_of(tune)))):
        metrics = {"l0": float(rng.uniform(2, 9)), "fvu": float(rng.uniform(0.1, 1))}
        metrics |= {"fvu_at_l0": metrics["fvu"], "l0_off": 0.04}
        failed = proposal.number == 4
        measured = {"metrics": {} if failed else metrics, "counts": {}}
        outcome = Outcome("failed" if failed else "ok", measured, {}, {}, "diverged")
        trials.append(finished_trial(tune, proposal, f"{proposal.number}", outcome))
    records = [record_of(trial) for trial in trials]
    return trials, records


def drawn(folder: Path, tune: Tune, grid: Path) -> Path:
    folder.mkdir()
    write_figures(folder, tune, *made_up(tune), grid=grid)
    return folder


def test_figures_are_the_same_bytes_and_show_the_grid(tmp_path: Path) -> None:
    tune = Tune.model_validate({**SPACE, "constraints": {"l0": 6}, "batch": 12})
    grid = tmp_path / "cells.csv"
    cells = pd.DataFrame(
        {
            "status": ["ok", "failed", "ok"],
            "negative_control": ["no", "no", "yes"],
            "hook": "h",
            "l0": [3.0, None, 64.0],
            "fvu": [0.2, None, 1e-15],
        }
    )
    cells.to_csv(grid, index=False)
    a, b = (drawn(tmp_path / name, tune, grid) for name in "ab")
    assert sha256_folder(a) == sha256_folder(b)
    assert sorted(p.name for p in a.iterdir()) == [
        f"{name}.{kind}"
        for name in ("front", "history", "importance", "slice")
        for kind in ("pdf", "png", "svg")
    ]
    assert "cells of the grid" in (a / "front.svg").read_text()
    cells[:2].to_csv(grid, index=False)
    # a negative control is no competitor
    assert sha256_folder(drawn(tmp_path / "c", tune, grid)) == sha256_folder(a)


def test_a_single_objective_is_drawn_over_l0_without_a_grid(tmp_path: Path) -> None:
    tune = Tune.model_validate({**SPACE, "objectives": {"fvu": "minimize"}, "batch": 12})
    records = made_up(tune)[1]
    front(tmp_path, tune, [t for t in records if t.status == "ok"], {}, pd.DataFrame())
    assert "cells of the grid" not in (tmp_path / "front.svg").read_text()


def test_figures_of_studies_have_a_panel_per_l0_and_name_each_recipe(tmp_path: Path) -> None:
    space = {
        "batch": 12, "sampler": "random", "studies": {"target_l0": [2, 3]},
        "all": {"expansion": 4, "lr": {"low": 1e-3, "high": 1e-1, "log": True}},
        "recipes": {
            "plain": {"activation": "topk"},
            "ratio": {"activation": "batchtopk", "lr_decay": {"low": 0.1, "high": 0.9}},
        },
    }  # fmt: skip
    tune = completed(Tune.model_validate(space), {})
    a, b = (drawn(tmp_path / name, tune, tmp_path / "none") for name in "ab")
    assert sha256_folder(a) == sha256_folder(b)
    for name in ("front", "history", "importance", "slice"):
        text = (a / f"{name}.svg").read_text()
        assert all(recipe in text for recipe in ("plain", "ratio"))
    history = (a / "history.svg").read_text()
    assert "L0 2" in history and "L0 3" in history


def test_without_a_finished_trial_there_is_nothing_to_draw(tmp_path: Path) -> None:
    tune = Tune.model_validate(SPACE)
    write_figures(tmp_path, tune, [], [], grid=tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
