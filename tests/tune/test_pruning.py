"""Hyperband: the same trials are pruned in any order of completion; training is unchanged."""

import itertools
import shutil
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sae_repro.errors import StudyError
from sae_repro.files import sha256_file
from sae_repro.params import Train
from sae_repro.train.job import CellJob
from sae_repro.training import Trainer
from sae_repro.tune.pruning import last_checkpoint
from sae_repro.tune.results import Trial, trials

from .conftest import TinyStudy

STORE = ".sae-repro/cells"
FVU: dict[str, Any] = {"objectives": {"fvu": "minimize"}}
# 64 steps, a checkpoint every 16: looks at 16, 32, 48
HYPERBAND: dict[str, Any] = {**FVU, "pruner": {"min_steps": 16, "reduction_factor": 2}}


@pytest.mark.parametrize(
    ("done", "step"), [(1, 0), (20, 0), (21, 20), (40, 20), (41, 40), (59, 40)]
)
def test_a_trial_is_looked_at_where_it_was_last_saved(done: int, step: int) -> None:
    """A step's checkpoint is written after it has been logged."""
    job = SimpleNamespace(settings=Train(checkpoint_every=20))
    assert last_checkpoint(cast(CellJob, job), done) == step


def by_status(study: TinyStudy) -> dict[str, list[Trial]]:
    found = trials(study.folder)
    return {s: [t for t in found if t.status == s] for s in ("ok", "pruned", "failed")}


@pytest.fixture
def pruned(study: TinyStudy) -> TinyStudy:
    """A study with a pruner, run to its end."""
    # Optuna assigns brackets by a hash that knows our code's: enough trials that some surely stop
    study.space(**HYPERBAND, trials=20)
    study.tune()
    return study


def test_pruned_trials_record_when_and_why(pruned: TinyStudy) -> None:
    found = by_status(pruned)
    assert found["pruned"] and found["ok"]
    for trial in found["pruned"]:
        assert trial.reason.startswith("stopped at step ")
        assert not trial.metrics and not trial.best and not trial.evaluation
        assert not (pruned.folder / STORE / trial.key).exists()
    # the first batch has none to be compared with but itself
    assert all(t.status == "ok" for t in trials(pruned.folder)[:4])


def test_evaluating_checkpoints_changes_no_bit_of_a_cell(pruned: TinyStudy) -> None:
    """The first batch is asked alike with and without a pruner."""
    without = pruned.copy("without", "journal.log", ".sae-repro")
    without.space(trials=4, **FVU)
    without.tune()
    for ours, theirs in zip(trials(pruned.folder)[:4], trials(without.folder), strict=True):
        assert ours.key == theirs.key
        for file in ("sae_weights.safetensors", "metrics.jsonl", "train.json"):
            assert sha256_file(pruned.folder / STORE / ours.key / file) == sha256_file(
                without.folder / STORE / theirs.key / file
            )


@pytest.mark.slow
def test_cells_trained_before_are_evaluated_at_their_checkpoints_too(pruned: TinyStudy) -> None:
    """Else what stands in the store would decide which trials stop."""
    filled = pruned.copy("filled", "journal.log", "tune.lock")
    shutil.rmtree(filled.folder / ".sae-repro/tune")
    assert any((filled.folder / STORE).iterdir())
    assert filled.tune() == pruned.trials


@pytest.mark.slow
def test_after_a_kill_the_same_trials_are_pruned(
    pruned: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = pruned.copy("killed", "journal.log", ".sae-repro")
    step_of = Trainer._step
    with monkeypatch.context() as patch:
        for at in (5, 16, 17, 40):  # before a look, at a checkpoint, at its look, after
            count = itertools.count()

            def die(self: Trainer, step: int, x_nd: Any, count: Any = count, at: int = at) -> Any:
                if step == at and next(count) == 1:
                    raise KeyboardInterrupt
                return step_of(self, step, x_nd)

            patch.setattr(Trainer, "_step", die)
            with pytest.raises(StudyError, match="stopped from outside"):
                killed.tune()
    assert killed.tune() == pruned.trials


@pytest.mark.slow
def test_a_checkpoint_without_reports_is_not_resumed(
    pruned: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage train was killed in the middle of a cell that is a trial, too."""
    other = pruned.copy("other", "journal.log", ".sae-repro")
    step_of = Trainer._step

    def die(self: Trainer, step: int, x_nd: Any) -> Any:
        if step == 50:
            raise KeyboardInterrupt
        return step_of(self, step, x_nd)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", die)
        with pytest.raises(StudyError, match="stopped from outside"):
            other.tune()
    shutil.rmtree(other.folder / ".sae-repro/tune")
    assert list((other.folder / ".sae-repro/checkpoints").iterdir())
    assert other.tune() == pruned.trials


def test_a_resumed_batch_prunes_the_same_trials(pruned: TinyStudy) -> None:
    """What its finished half scored must not be a rung that the rest has to climb."""
    # with this seed it would
    large = {**HYPERBAND, "batch": 8, "sampler": "random", "seed": 1}
    at_once = pruned.copy("at-once", "journal.log")
    at_once.space(**large, trials=16)
    at_once.tune()
    resumed = pruned.copy("resumed", "journal.log")
    for count in (12, 16):
        resumed.space(**large, trials=count)
        resumed.tune()
    assert resumed.trials == at_once.trials
