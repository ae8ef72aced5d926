"""MLflow as a projection: complete, idempotent, and never able to fail the pipeline."""

import json
import math
import shutil
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sae_repro.errors import StudyError
from sae_repro.files import write_json
from sae_repro.params import Cell
from sae_repro.params.appearance import look
from sae_repro.track.mlflow_sync import Sent, sync
from sae_repro.track.projection import FRONTIER_X, labels, projection, with_spent
from sae_repro.track.server import redacted, tracking_uri

from .conftest import CELL, STEPS, cells_named, dying_log_batch, free_port, write_cell


@pytest.fixture
def study(make_study: Callable[[Path], Path], tmp_path: Path) -> Path:
    return make_study(tmp_path / "study")


def send(study: Path) -> Sent:
    return sync(
        projection(cells_named(["a", "b", "bad"]), study, weights=True), study, study, "test"
    )


def rows(database: Path) -> dict[str, list[Any]]:
    """All metric rows, parameters and runs, without the run ids that MLflow makes up."""
    with sqlite3.connect(database) as connection:
        return {
            "metrics": sorted(
                connection.execute(
                    "select r.name, m.key, m.value, m.step, m.timestamp - r.start_time "
                    "from metrics m join runs r on m.run_uuid = r.run_uuid"
                ).fetchall()
            ),
            "params": sorted(
                connection.execute(
                    "select r.name, p.key, p.value from params p join runs r "
                    "on p.run_uuid = r.run_uuid"
                ).fetchall()
            ),
            "runs": sorted(connection.execute("select name, status from runs").fetchall()),
        }


def test_one_run_per_cell_with_its_curves(study: Path) -> None:
    sent = send(study)
    found = rows(study / "mlflow.db")
    assert found["runs"] == [("a", "FINISHED"), ("b", "FINISHED"), ("bad", "FAILED"),
                             ("report", "FINISHED")]  # fmt: skip
    assert sent.runs_created == 4
    curve = [r for r in found["metrics"] if r[:2] == ("a", "train/loss")]
    assert [(step, value) for _, _, value, step, _ in sorted(curve, key=lambda r: r[3])] == [
        (s, 1 / (s + 1)) for s in range(STEPS)
    ]
    assert ("a", "fvu", 0.5, 0, 0) in found["metrics"]
    assert ("a", "lambda", "0.1") in found["params"]
    assert not any(r[1] == "k" for r in found["params"])


def test_a_run_has_the_first_cost_of_its_training(study: Path) -> None:
    """Time is no part of a result: another one makes no other run."""
    cells = cells_named(["a", "b", "bad"])
    runs = projection(cells, study, weights=False)
    assert ("cost/parameters", 0, 76.0) in runs[0]["metrics"] and "spent" not in runs[0]
    cost = study / f".sae-repro/costs/{'0' * 8}.json"
    for seconds, sent in ((None, 0), (4.0, 3), (5.0, 0)):
        if seconds:
            write_json(cost, {"seconds": seconds, "cpu_seconds": 3.0, "parts": 1, "device": "X"})
        told = sync(with_spent(runs, cells, study), study, study, "test")
        if seconds:
            assert (told.runs_created, told.runs_completed) == (0, 0)
            assert told.metric_rows == sent
    found = rows(study / "mlflow.db")["metrics"]
    spent = [r[:3] for r in found if r[1].startswith("cost/") and r[0] == "a"]
    assert spent == [("a", "cost/cpu_seconds", 3.0), ("a", "cost/flops_per_step", 2560.0),
                     ("a", "cost/parameters", 76.0), ("a", "cost/seconds", 4.0),
                     ("a", "cost/tokens_per_second", STEPS * 8 / 4.0)]  # fmt: skip


def test_a_run_says_what_it_is_and_what_its_cell_reads(study: Path) -> None:
    entry = projection(cells_named(["a"]), study, weights=False)[0]
    assert entry["labels"] == {
        "architecture": "vanilla", "width": "8", "hook": "h", "control": "no", "status": "ok",
        "mlflow.runColor": look("vanilla").colour,
    }  # fmt: skip
    assert entry["params"]["sparsity"] == "λ = 0.1"
    # beside it in train.json, and without a meaning for a cell that is not resampled
    assert "resample_every" not in entry["params"]
    send(study)
    [(found,)] = sqlite3.connect(study / "mlflow.db").execute(
        "select t.value from tags t join runs r on t.run_uuid = r.run_uuid "
        "where r.name = 'a' and t.key = 'architecture'"
    )
    assert found == "vanilla"


def test_a_cell_that_missed_its_target_is_tagged() -> None:
    cell = Cell(activation="topk", expansion=2, k=8)
    summary = {"choices": {"activation": "topk"}, "hook": "h", "d_sae": 16, "status": "ok"}
    tags = labels(cell, summary, {"status": "ok", "metrics": {"l0": 12.0, "fvu": 0.5}})
    assert tags["remarks"] == "L0 12, target 8 missed"
    assert "remarks" not in labels(
        cell, summary, {"status": "ok", "metrics": {"l0": 8.1, "fvu": 0.5}}
    )


def test_a_colour_chosen_in_the_page_stays_and_other_labels_are_kept_up_to_date(
    study: Path,
) -> None:
    from mlflow import MlflowClient

    send(study)
    client = MlflowClient(f"sqlite:///{study / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("test").experiment_id
    [run] = [r for r in client.search_runs([experiment]) if r.info.run_name == "a"]
    client.set_tag(run.info.run_id, "mlflow.runColor", "#123456")
    client.set_tag(run.info.run_id, "architecture", "as an older release had it")
    send(study)
    tags = client.get_run(run.info.run_id).data.tags
    assert (tags["mlflow.runColor"], tags["architecture"]) == ("#123456", "vanilla")


def test_only_trained_cells_have_a_place_on_the_frontier(study: Path) -> None:
    write_cell(study, "pca", key="p", fvu=1.2)
    cells = {**cells_named(["a", "bad"]), "pca": Cell(baseline="pca")}
    entries = projection(cells, study, weights=False)
    found = {e["name"]: [v for name, _, v in e["metrics"] if name == FRONTIER_X] for e in entries}
    assert found == {"a": [math.log10(3)], "bad": [], "pca": [], "report": []}


def test_sending_again_adds_nothing(study: Path) -> None:
    send(study)
    before = rows(study / "mlflow.db")
    sent = send(study)
    assert rows(study / "mlflow.db") == before
    assert sent == Sent(runs_unchanged=4)


@pytest.mark.parametrize("calls", [1, 2, 4, 7, 9])
def test_interrupted_anywhere_the_next_sync_completes_it(
    study: Path, calls: int, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    runs = projection(cells_named(["a", "b", "bad"]), study, weights=True)
    for folder in (whole, broken):
        folder.mkdir()
        shutil.copy(empty_database, folder)
    sync(runs, study, whole, "test")
    with (
        monkeypatch.context() as patched,
        pytest.raises(StudyError, match="retry later: `sae-repro track`"),
    ):
        patched.setattr(MlflowClient, "log_batch", dying_log_batch(calls))
        sync(runs, study, broken, "test")
    sync(runs, study, broken, "test")
    assert rows(broken / "mlflow.db") == rows(whole / "mlflow.db")


def test_a_cell_that_changed_supersedes_its_old_run(study: Path) -> None:
    send(study)
    path = study / "artifacts/train/a/train.json"
    path.write_text(path.read_text().replace("00000000", "99999999"))
    sent = send(study)
    assert (sent.runs_created, sent.runs_unchanged) == (1, 3)
    with sqlite3.connect(study / "mlflow.db") as connection:
        output = connection.execute(
            "select k.value, s.value from tags s join tags k on s.run_uuid = k.run_uuid "
            "where s.key = 'sae_repro.superseded' and k.key = 'sae_repro.key'"
        ).fetchall()
    assert ("00000000", "true") in output
    assert ("99999999", "true") not in output


def test_the_projection_has_no_clock_and_no_host(study: Path) -> None:
    text = json.dumps(projection(cells_named(["a", "b", "bad"]), study, weights=False))
    assert text == json.dumps(projection(cells_named(["a", "b", "bad"]), study, weights=False))
    assert socket.gethostname() not in text
    assert "safetensors" not in text


def test_a_closed_port_is_one_clear_line_without_the_password(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{free_port()}")
    with pytest.raises(StudyError) as caught:
        send(study)
    message = str(caught.value)
    assert "hunter2" not in message
    assert "\n" not in message
    assert "sae-repro track" in message


def test_redaction_reaches_every_address() -> None:
    assert redacted("x postgresql://u:p@h/d and http://t@h:5") == (
        "x postgresql://***@h/d and http://***@h:5"
    )


def test_an_unreachable_server_is_one_warning_and_the_stage_succeeds(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sae_repro.stage import StageContext
    from sae_repro.track import run

    monkeypatch.chdir(study)
    declared = {
        "track": {"experiment": "test"},
        "recipes": {},
        "cells": dict.fromkeys(("a", "b", "bad"), CELL),
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    run(StageContext("track", declared))
    warnings = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in warnings if line.startswith("track: warning:")]) == 1
    offline = (study / "artifacts/track/runs.jsonl").read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{study}/x.db")
    run(StageContext("track", declared))
    assert (study / "artifacts/track/runs.jsonl").read_bytes() == offline


def test_the_default_store_is_the_checkouts_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path / 'mlflow.db'}"
