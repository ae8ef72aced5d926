"""The stage tune: the same trials when resumed, run in parallel or killed; refused studies."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from sae_repro.contents import seal
from sae_repro.errors import StudyError
from sae_repro.files import read_json
from sae_repro.params.tune import AT_L0, L0_OFF
from sae_repro.tune.measuring import MEASURED
from sae_repro.tune.results import trials

from .conftest import TinyStudy

STATE = ".sae-repro"
SINGLE: dict[str, Any] = {"objectives": {"fvu": "minimize"}}


@pytest.mark.slow
def test_more_trials_later_are_the_same_as_all_at_once(study: TinyStudy) -> None:
    """6 ends in the middle of a batch: the rest of it must not see its finished half."""
    at_once = study.copy("at-once")
    at_once.space(trials=14)
    at_once.tune()
    for count in (6, 8, 14):
        study.space(trials=count)
        assert len(study.tune().splitlines()) == count + 1
    assert study.outputs() == at_once.outputs()
    study.space(trials=4)  # fewer again: the record is of as many as are asked for
    assert len(study.tune().splitlines()) == 5


@pytest.mark.parametrize("sampler", ["nsga2", "gp", "random"])
def test_every_sampler_proposes_the_same_again(study: TinyStudy, sampler: str) -> None:
    study.space(sampler=sampler, **SINGLE)
    at_once = study.copy("at-once")
    at_once.tune()
    study.space(sampler=sampler, trials=6, **SINGLE)
    study.tune()
    study.space(sampler=sampler, **SINGLE)
    assert study.tune() == at_once.trials


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp"])
def test_a_sampler_learns_from_earlier_batches(study: TinyStudy, sampler: str) -> None:
    """Else `deterministic` could mean random search under another name."""
    study.space(sampler=sampler, **SINGLE)
    study.tune()
    random = study.copy("random", "journal.log")
    random.space(sampler="random", **SINGLE)
    random.tune()
    choices = [pd.read_csv(s.folder / "tune/trials.csv")["choices"] for s in (study, random)]
    assert (choices[0][:4] == choices[1][:4]).all()  # nothing to learn from yet
    assert (choices[0][8:] != choices[1][8:]).all()


@pytest.mark.parametrize("jobs", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_number_of_workers_changes_nothing(study: TinyStudy, jobs: int) -> None:
    study.space(trials=6)
    alone = study.copy("alone")
    alone.tune()
    process = study.start(jobs=jobs)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert study.outputs() == alone.outputs()


def until(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    while not condition() and process.poll() is None:
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_but_its_time(study: TinyStudy) -> None:
    study.space(trials=4)
    undisturbed = study.copy("undisturbed")
    undisturbed.tune()
    process = study.start(jobs=2)

    def workers() -> list[psutil.Process]:
        """loky's, not its resource tracker."""
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if "popen_loky" in " ".join(child.cmdline())]

    until(lambda: list((study.folder / STATE).glob("checkpoints/*")) and workers(), process)
    os.kill(workers()[0].pid, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "a worker was lost; restarting its trials" in output
    assert study.outputs() == undisturbed.outputs()


KILL_AFTER_APPENDS = """
import os, signal
from sae_repro.tune.optuna_journal import Journal
append, appended = Journal.append, []
def counted(self, trial):
    append(self, trial)
    appended.append(trial)
    if len(appended) == {}:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.append = counted
"""


def test_a_driver_killed_anywhere_ends_with_the_same_trials(study: TinyStudy) -> None:
    """Between two batches; between two trials of a batch; while a cell trains."""
    undisturbed = study.copy("undisturbed")
    undisturbed.tune()
    for appends in (4, 2):
        process = study.start(jobs=1, patch=KILL_AFTER_APPENDS.format(appends))
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = study.start(jobs=1)
    until(lambda: list((study.folder / STATE).glob("checkpoints/*")), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (study.folder / "tune/trials.csv").exists()
    study.tune()
    assert study.outputs() == undisturbed.outputs()


def test_a_truncated_journal_is_repaired_and_a_damaged_one_named(study: TinyStudy) -> None:
    study.space(trials=4)
    before = study.tune()
    journal = study.folder / "tune/journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole[: -len(whole.splitlines(keepends=True)[-1]) // 2])
    assert study.tune() == before
    journal.write_bytes(whole.replace(b'{"op_code":4', b'{"op_code":4,', 1))
    with pytest.raises(StudyError, match=r"journal\.log: damaged .* move the file away"):
        study.tune()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 3}, "tune.seed: 0 there, 3 here"),
        ({"batch": 7}, "tune.batch: 4 there, 7 here"),
        ({"all": {"expansion": 2}}, 'tune.all.expansion: {"values":[2,4]} there, 2 here'),
        ({"objectives": {"fvu": "minimize"}}, "tune.objectives.l0: minimize there, nothing here"),
    ],
)
def test_another_study_is_refused_saying_what_differs(
    study: TinyStudy, change: dict[str, Any], says: str
) -> None:
    study.space(trials=4)
    study.tune()
    journal = (study.folder / "tune/journal.log").read_bytes()
    study.space(trials=4, **change)
    with pytest.raises(StudyError, match="holds the trials of another study") as refused:
        study.tune()
    assert says in str(refused.value)
    assert (study.folder / "tune/journal.log").read_bytes() == journal


def test_other_training_or_activations_are_another_study(study: TinyStudy) -> None:
    study.space(trials=4)
    study.tune()
    params = study.folder / "params.yaml"
    params.write_text(params.read_text().replace("batch_size: 64", "batch_size: 32"))
    with pytest.raises(StudyError, match=r"train\.batch_size: 64 there, 32 here"):
        study.tune()
    params.write_text(params.read_text().replace("batch_size: 32", "batch_size: 64"))
    manifest = study.folder / "artifacts/extract/manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    seal(manifest.parent)
    with pytest.raises(StudyError, match="activations: "):
        study.tune()


def test_a_trial_that_diverges_is_recorded_and_the_others_go_on(study: TinyStudy) -> None:
    study.space(
        trials=8,
        all={"expansion": 2},
        recipes={
            "wild": {"penalty": "l1", "lambda": 1e-2, "lr": {"low": 50.0, "high": 90.0}},
            "fine": {"activation": "topk", "k": {"low": 1, "high": 6}},
        },
    )
    study.tune()
    found = trials(study.folder)
    assert {t.status for t in found if t.recipe == "wild"} == {"failed"}
    assert {t.status for t in found if t.recipe == "fine"} == {"ok"}
    for trial in found:
        assert (trial.status == "failed") == ("diverged" in trial.reason)
        assert not (trial.best and trial.status == "failed")
        assert bool(trial.metrics) == (trial.status == "ok")


def test_an_unmeasured_metric_fails_the_trial_and_an_unknown_one_the_study(
    study: TinyStudy,
) -> None:
    study.space(
        trials=2, batch=2, objectives={"fvu_at_l0": "minimize"},
        recipes={"vanilla": {"penalty": "l1", "lambda": 1e-2}},
    )  # fmt: skip
    study.tune()  # without a target L0
    assert {t.reason for t in trials(study.folder)} == {"not measured on this cell: fvu_at_l0"}
    for name, says in (("deadness", "no such metric"), ("kl", "not measured on tuning documents")):
        study.space(trials=4, constraints={name: 0.1})
        with pytest.raises(StudyError, match=rf"tune\.constraints\.{name}: {says}.* has l0"):
            study.tune()


def test_the_metrics_of_a_trial_are_those_of_the_pass_that_evaluate_makes(
    study: TinyStudy,
) -> None:
    """Named in one place, so that a space is checked without torch."""
    study.space(trials=2, batch=2)
    study.tune()
    measured = read_json(
        study.folder / STATE / "cells" / trials(study.folder)[0].evaluation / "metrics.json"
    )
    assert set(MEASURED) <= measured["metrics"].keys() <= {*MEASURED, AT_L0, L0_OFF}


def test_a_broken_constraint_is_never_best(study: TinyStudy) -> None:
    study.space(constraints={"l0": 3.0}, **SINGLE)
    study.tune()
    found = [t for t in trials(study.folder) if t.status == "ok"]
    best = [t for t in found if t.best]
    assert len(best) == 1
    assert best[0].metrics["l0"] <= 3.0
    assert any(t.metrics["fvu"] < best[0].metrics["fvu"] for t in found)


def test_trials_lie_in_the_store_of_the_stages(study: TinyStudy) -> None:
    """Key and measurement in the record are folders of the store, with the record's numbers."""
    study.space(trials=4)
    study.tune()
    cells = study.folder / STATE / "cells"
    for trial in trials(study.folder):
        assert (cells / trial.key / "sae_weights.safetensors").is_file()
        measured = read_json(cells / trial.evaluation / "metrics.json")
        assert measured["metrics"]["fvu"] == trial.metrics["fvu"]


def test_a_missing_trials_csv_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"dvc repro .*tune/dvc\.yaml"):
        trials(tmp_path)
