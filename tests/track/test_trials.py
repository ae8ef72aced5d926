"""A tuning study in MLflow: one parent, a nested run per finished trial, safe to repeat."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sae_repro.track.mlflow_sync import Sent
from sae_repro.track.trials import Trial, send_trials


@pytest.fixture
def study(make_study: Callable[[Path], Path], tmp_path: Path) -> Path:
    return make_study(tmp_path / "study")


def trial(number: int, state: str = "COMPLETE", **values: float) -> Trial:
    return {"number": number, "params": {"lambda": 0.1 * number, "k": None}, "values": values,
            "state": state, "cell_key": f"key{number}"}  # fmt: skip


def send(study: Path, trials: list[Trial], name: str = "frontier-0a1b") -> Sent:
    return send_trials(name, trials, study, study, "test")


def test_trials_are_nested_below_their_study(study: Path) -> None:
    told = [trial(0, l0=8.0, fvu=0.25), trial(1, "FAIL"), trial(2, "RUNNING"), trial(3, "PRUNED")]
    assert send(study, told).runs_created == 4
    assert send(study, told) == Sent(runs_unchanged=4)
    client = MlflowClient(f"sqlite:///{study / 'mlflow.db'}")
    assert client.get_experiment_by_name("test") is None
    experiment = client.get_experiment_by_name("test-tuning").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    parent = runs.pop("frontier-0a1b")
    assert {r.data.tags["mlflow.parentRunId"] for r in runs.values()} == {parent.info.run_id}
    assert {name: run.info.status for name, run in runs.items()} == {
        "frontier-0a1b/0000": "FINISHED", "frontier-0a1b/0001": "FAILED",
        "frontier-0a1b/0003": "KILLED",
    }  # fmt: skip
    first = runs["frontier-0a1b/0000"]
    assert first.data.metrics == {"l0": 8.0, "fvu": 0.25}
    assert first.data.params == {"trial": "0", "lambda": "0.0"}
    assert first.data.tags["sae_repro.key"] == "key0"


def test_a_study_that_goes_on_keeps_its_parent_and_its_trials(study: Path) -> None:
    send(study, [trial(0, l0=8.0), trial(1, "RUNNING")])
    sent = send(study, [trial(0, l0=8.0), trial(1, l0=4.0), trial(2, l0=2.0)])
    assert (sent.runs_created, sent.runs_unchanged) == (2, 2)
    # another one has trials of the same numbers
    assert send(study, [trial(0, l0=8.0)], "other").runs_created == 2
