"""Pruning deletes what this study superseded, in a store that others use as well."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sae_repro.errors import StudyError
from sae_repro.params import Track
from sae_repro.track import send
from sae_repro.track.history import prune

from .conftest import cells_named, write_cell

CELLS = ("a", "b", "bad")


@pytest.fixture
def study(make_study: Callable[[Path], Path], tmp_path: Path) -> Path:
    return make_study(tmp_path / "study")


def sync(study: Path, experiment: str = "test") -> None:
    send(study, study, cells_named(CELLS), Track(experiment=experiment))


def active(client: MlflowClient) -> set[str]:
    ids = [e.experiment_id for e in client.search_experiments()]
    return {run.info.run_id for run in client.search_runs(ids)}


def test_only_our_own_superseded_runs_are_deleted(study: Path, tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{study / 'mlflow.db'}")
    sync(study)
    experiment = client.get_experiment_by_name("test").experiment_id
    [old] = client.search_runs([experiment], "tags.`sae_repro.cell` = 'a'")
    write_cell(study, "a", key="99999999")
    sync(study)
    # others': a run of nothing like ours, one with our words, a copy of our superseded one with
    # all its tags, another study's superseded run, and an experiment of their own
    client.create_run(experiment, run_name="theirs")
    client.create_run(experiment, tags={"sae_repro.superseded": "true", "sae_repro.study": "root"})
    client.create_run(experiment, tags={**client.get_run(old.info.run_id).data.tags})
    client.create_run(
        experiment, tags={**old.data.tags, "sae_repro.superseded": "true", "sae_repro.study": "x"}
    )
    elsewhere = client.create_experiment("theirs")
    client.create_run(elsewhere, tags={"sae_repro.superseded": "true", "sae_repro.study": "root"})
    before = active(client)
    assert old.info.run_id in before
    assert prune(study, study, "test") == 1
    assert active(client) == before - {old.info.run_id}
    assert prune(study, study, "test") == 0
    assert {e.name for e in client.search_experiments()} == {"Default", "test", "theirs"}
    # nor does a sync take them for its own
    sync(study)
    assert active(client) == before - {old.info.run_id}


def test_pruning_without_an_experiment_is_an_error(study: Path) -> None:
    with pytest.raises(StudyError, match="no experiment test in MLflow yet"):
        prune(study, study, "test")


@pytest.mark.slow
def test_a_pruned_result_that_comes_back_is_sent_anew(study: Path) -> None:
    client = MlflowClient(f"sqlite:///{study / 'mlflow.db'}")
    sync(study)
    write_cell(study, "a", key="99999999")
    sync(study)
    prune(study, study, "test")
    write_cell(study, "a", key="00000000")
    sync(study)
    experiment = client.get_experiment_by_name("test").experiment_id
    output = {
        (run.data.tags["sae_repro.key"], run.data.tags["sae_repro.superseded"])
        for run in client.search_runs([experiment], "tags.`sae_repro.cell` = 'a'")
    }
    assert output == {("00000000", "false"), ("99999999", "true")}
