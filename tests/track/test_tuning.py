"""A tuning study in MLflow: one parent, a nested run per trial, safe to repeat."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sae_repro.track.mlflow_sync import Sent
from sae_repro.track.tuning import TrialEntry, send_trials

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def study(make_study: Callable[[Path], Path], tmp_path: Path) -> Path:
    return make_study(tmp_path / "study")


def trial(number: int, status: str = "ok", **values: float) -> TrialEntry:
    return {"number": number, "params": {"lambda": 0.1 * number, "k": None}, "values": values,
            "status": status, "cell_key": f"key{number}"}  # fmt: skip


def send(study: Path, trials: list[TrialEntry], name: str = "frontier-0a1b") -> Sent:
    return send_trials(name, trials, study, study, "test")


def test_trials_are_nested_below_their_study(study: Path) -> None:
    output = [trial(0, l0=8.0, fvu=0.25), trial(1, "failed"), trial(3, "pruned")]
    assert send(study, output).runs_created == 4
    assert send(study, output) == Sent(runs_unchanged=4)
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
    send(study, [trial(0, l0=8.0)])
    sent = send(study, [trial(0, l0=8.0), trial(1, l0=4.0), trial(2, l0=2.0)])
    assert (sent.runs_created, sent.runs_unchanged) == (2, 2)
    # another one has trials of the same numbers
    assert send(study, [trial(0, l0=8.0)], "other").runs_created == 2


def test_the_command_sends_the_trials_of_a_study(study: Path) -> None:
    """tune/trials.csv as the stage writes it."""
    from typer.testing import CliRunner

    from sae_repro.cli import app

    params = (ROOT / "params.yaml").read_text()
    only = params.index("  only:")  # of cells that this study does not have
    params = params[:only] + params[params.index("\njudge:\n") :]
    page = params.index("  explorer:")  # likewise
    params = params[:page].rstrip() + " {}\n" + params[params.index("\ntrack:\n") :]
    start = params.index("\ncells:\n")
    lines = (f"  {name}: {{recipe: topk, k: {k}}}\n" for k, name in enumerate(("a", "b", "bad"), 8))
    cells = "\ncells:\n" + "".join(lines)
    (study / "params.yaml").write_text(params[:start] + cells)
    (study / "tune").mkdir()
    (study / "tune/trials.csv").write_text(
        "trial,status,best,recipe,param.k,l0,reason,choices,key,evaluation\n"
        "0,ok,yes,topk,8,8.0,,{},key0,e0\n"
        "1,failed,no,topk,16,,diverged,{},key1,\n"
    )
    (study / "tune/best.yaml").write_text("study: 0a1b\ntrials: []\n")
    first, second = (CliRunner().invoke(app, ["track", str(study)]) for _ in range(2))
    assert first.exit_code == second.exit_code == 0, first.output
    assert "\ntrials: runs created: 3, " in first.output
    assert "\ntrials: runs created: 0, runs unchanged: 3, " in second.output
