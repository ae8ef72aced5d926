"""Faults around MLflow: bad addresses, passwords, noise, and results that change back."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sae_repro.errors import StudyError
from sae_repro.stage import StageContext
from sae_repro.track import mlflow_sync, run
from sae_repro.track.mlflow_sync import Sent, sync
from sae_repro.track.projection import projection
from sae_repro.track.server import redacted

from .conftest import CELL, cells_named


@pytest.fixture
def study(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study's folder with one evaluated cell and a report of one table."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "study"
    write_cell(folder, key="a1", fvu=0.5)
    shutil.copy(empty_database, folder)
    for place in ("tables", "figures"):
        (folder / "reports" / place).mkdir(parents=True)
        (folder / "reports" / place / "cells.md").write_text(place)
    return folder


def write_cell(study: Path, *, key: str, fvu: float, name: str = "a") -> None:
    trained, evaluated = (study / "artifacts" / part / name for part in ("train", "evaluate"))
    for folder in (trained, evaluated):
        folder.mkdir(parents=True, exist_ok=True)
    summary = {
        "cell": name, "key": key, "status": "ok", "hook": "h", "d_in": 4, "d_sae": 8, "steps": 2,
        "seed": 0, "train": {"batch_size": 8}, 
        "choices": {"expansion": 2.0, "penalty": "l1", "lambda": 0.1},
    }  # fmt: skip
    (trained / "train.json").write_text(json.dumps(summary))
    (trained / "metrics.jsonl").write_text('{"step": 0, "loss": 2.0}\n{"step": 1, "loss": 1.0}\n')
    (evaluated / "metrics.json").write_text(
        json.dumps({"status": "ok", "metrics": {"fvu": fvu}, "counts": {}, "intervals": {}})
    )


def send(study: Path) -> Sent:
    return sync(projection(cells_named(["a"]), study, weights=True), study, study, "test")


def query(study: Path, sql: str) -> list[Any]:
    with sqlite3.connect(study / "mlflow.db") as connection:
        return connection.execute(sql).fetchall()


def current(study: Path) -> list[Any]:
    """(key, latest held-out FVU) of the runs of cell `a` that are not superseded."""
    return query(
        study,
        "select k.value, m.value from tags k "
        "join latest_metrics m on m.run_uuid = k.run_uuid and m.key = 'fvu' "
        "left join tags s on s.run_uuid = k.run_uuid and s.key = 'sae_repro.superseded' "
        "where k.key = 'sae_repro.key' and coalesce(s.value, 'false') <> 'true'",
    )


def test_a_new_evaluation_of_the_same_weights_shows_its_own_value(study: Path) -> None:
    """MLflow shows the largest of several values at one step: the older must not win."""
    send(study)
    write_cell(study, key="a1", fvu=0.25)
    send(study)
    assert current(study) == [("a1", 0.25)]
    assert send(study).metric_rows == 0


def test_a_reverted_cell_is_current_again(study: Path) -> None:
    send(study)
    write_cell(study, key="b2", fvu=0.25)
    send(study)
    assert current(study) == [("b2", 0.25)]
    write_cell(study, key="a1", fvu=0.5)
    sent = send(study)
    assert current(study) == [("a1", 0.5)]
    assert (sent.runs_created, sent.metric_rows) == (0, 0)


def test_an_artifact_that_comes_later_joins_the_run(study: Path) -> None:
    send(study)
    (study / "artifacts/train/a/sae_weights.safetensors").write_bytes(b"weights")
    before = query(study, "select count(*) from metrics")
    sent = send(study)
    assert (sent.runs_created, sent.artifacts) == (0, 1)
    assert query(study, "select count(*) from metrics") == before
    assert len(list((study / "mlartifacts").rglob("sae_weights.safetensors"))) == 1


def test_hidden_files_in_reports_are_not_sent(study: Path) -> None:
    before = projection(cells_named(["a"]), study, weights=True)
    (study / "reports/figures/.DS_Store").write_bytes(b"x")
    (study / "reports/figures/old").mkdir()
    assert projection(cells_named(["a"]), study, weights=True) == before


def test_without_a_report_the_cells_are_sent(study: Path) -> None:
    shutil.rmtree(study / "reports")
    assert [r["kind"] for r in projection(cells_named(["a"]), study, weights=True)] == ["cell"]


def test_a_missing_curve_is_named(study: Path) -> None:
    (study / "artifacts/train/a/metrics.jsonl").unlink()
    with pytest.raises(StudyError, match=r"train/a/metrics\.jsonl: missing"):
        projection(cells_named(["a"]), study, weights=True)


@pytest.mark.parametrize(
    "uri",
    [
        "nonsense://me:hunter2@host",
        "postgresql://me:hunter2@127.0.0.1:1/db",
        "sqlite:////dev/null/mlflow.db",
        "sqlite:////",  # a folder: found out only by opening it
    ],
)
def test_no_address_can_fail_the_stage(
    study: Path, uri: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(study)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run(
        StageContext(
            "track", {"track": {"experiment": "test"}, "recipes": {}, "cells": {"a": CELL}}
        )
    )
    out, err = capfd.readouterr()
    assert [line.startswith("track: warning: ") for line in err.splitlines()] == [True]
    assert "hunter2" not in out + err


@pytest.mark.slow
def test_a_locked_database_is_one_line_and_loses_nothing(study: Path) -> None:
    send(study)
    write_cell(study, key="b2", fvu=0.25)
    other = sqlite3.connect(study / "mlflow.db", isolation_level=None)
    other.execute("begin exclusive")
    try:
        with pytest.raises(StudyError, match="locked") as caught:
            send(study)
    finally:
        other.close()
    assert len(str(caught.value).splitlines()) == 1
    assert send(study).runs_created == 1


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hun@ter2", "hun:ter2@/x"])
@pytest.mark.parametrize("padding", range(200, 250, 7))
def test_no_part_of_a_password_is_shown_in_a_long_message(
    password: str, padding: int, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"postgresql+psycopg2://me:{password}@host/db"

    def refuses(root: Path) -> None:
        raise OSError("x" * padding + f" {uri} and again {password}")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(mlflow_sync, "connect", refuses)
    with pytest.raises(StudyError) as caught:
        send(study)
    for part in (password, "hun", "ter2"):
        assert part not in str(caught.value)
    assert "host/db" in str(caught.value)


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hun@ter2"])
def test_an_address_other_than_the_tracking_servers_is_redacted_too(password: str) -> None:
    """A server quotes the address of its own database, which this process never knew."""
    text = f"cannot reach postgresql+psycopg2://me:{password}@host/db today"
    assert redacted(text) == "cannot reach postgresql+psycopg2://***@host/db today"


def test_redaction_leaves_addresses_without_a_user_alone() -> None:
    text = "at http://127.0.0.1:5000/api, sqlite:////home/x/mlflow.db; mail me@here"
    assert redacted(text) == text


def test_a_database_of_ones_own_choice_has_its_artifacts_beside_it(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this, MLflow would open a folder `mlruns` wherever the stage happens to run."""
    monkeypatch.chdir(study)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/own/mlflow.db")
    send(study)
    assert {p.name for p in study.iterdir()} == {"artifacts", "reports", "mlflow.db"}
    assert len(list((tmp_path / "own/mlartifacts").rglob("cells.md"))) == 2


def test_a_quote_in_a_folders_name_is_no_fault(study: Path) -> None:
    folder = study.parent / "it's"
    study.rename(folder)
    (folder / "params.yaml").write_text("root: ..")
    send(folder)
    assert send(folder) == Sent(runs_unchanged=2)


def test_params_and_tags_beyond_one_batch(study: Path) -> None:
    for number in range(130):
        (study / f"reports/tables/t{number}.md").write_text(str(number))
    runs = projection(cells_named(["a"]), study, weights=True)
    runs[0]["params"] |= {f"choice{n:03d}": str(n) for n in range(230)}
    sync(runs, study, study, "test")
    assert query(study, "select count(*) from params where key like 'choice%'") == [(230,)]
    assert sync(runs, study, study, "test") == Sent(runs_unchanged=2)


@pytest.mark.slow
def test_a_new_process_is_silent_but_for_the_one_line(study: Path) -> None:
    """The first sync makes a database, which Alembic likes to talk about."""
    code = (
        "from sae_repro.stage import StageContext; from sae_repro.track import run;"
        "run(StageContext('track', {'track': {}, 'recipes': {}, 'cells': {'a': CELL}}))".replace(
            "CELL", repr(CELL)
        )
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://me:hunter2@127.0.0.1:{taken.getsockname()[1]}"
    message = {}
    for uri in (f"sqlite:///{study}/new.db", closed):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=study,
            env={**os.environ, "MLFLOW_TRACKING_URI": uri},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "hunter2" not in done.stdout + done.stderr
        message[uri] = done.stderr.splitlines()
    assert message[f"sqlite:///{study}/new.db"] == []
    assert len(message[closed]) == 1
