"""MLflow as a projection: complete, idempotent, and never able to fail the pipeline."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sae_repro.errors import StudyError
from sae_repro.track.mlflow_sync import Sent, sync
from sae_repro.track.projection import projection
from sae_repro.track.server import redacted, tracking_uri

STEPS = 400


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study's folder with two trained cells and one that failed."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "study"
    for number, name in enumerate(("a", "b", "bad")):
        trained = folder / "artifacts/train" / name
        evaluated = folder / "artifacts/evaluate" / name
        trained.mkdir(parents=True)
        evaluated.mkdir(parents=True)
        status = "failed" if name == "bad" else "ok"
        summary = {
            "cell": name, "key": f"{number}" * 8, "status": status, "hook": "h", "d_in": 4,
            "d_sae": 8, "steps": STEPS, "seed": 0, "train": {"batch_size": 8},
            "choices": {"expansion": 2.0, "k": None, "lambda": 0.1},
        }  # fmt: skip
        (trained / "train.json").write_text(json.dumps(summary))
        rows = [{"step": s, "tokens": 8 * s, "loss": 1 / (s + 1), "l0": 3.0} for s in range(STEPS)]
        (trained / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        (trained / "cfg.json").write_text("{}")
        (trained / "sae_weights.safetensors").write_bytes(bytes([number]) * 10)
        metrics = {} if status == "failed" else {"fvu": 0.5, "ce_sae": None}
        (evaluated / "metrics.json").write_text(
            json.dumps({"metrics": metrics, "counts": {}, "intervals": {}})
        )
        (evaluated / "contexts.parquet").write_bytes(b"x")
    for place in ("tables", "figures"):
        (folder / "reports" / place).mkdir(parents=True)
        (folder / "reports" / place / "x.md").write_text(place)
    return folder


def send(study: Path) -> Sent:
    return sync(projection(["a", "b", "bad"], study, weights=True), study, study, "test")


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


def test_sending_again_adds_nothing(study: Path) -> None:
    send(study)
    before = rows(study / "mlflow.db")
    sent = send(study)
    assert rows(study / "mlflow.db") == before
    assert sent == Sent(runs_unchanged=4)


@pytest.mark.parametrize("calls", [1, 2, 4, 7, 9])
def test_interrupted_anywhere_the_next_sync_completes_it(
    study: Path, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    runs = projection(["a", "b", "bad"], study, weights=True)
    whole.mkdir()
    broken.mkdir()
    sync(runs, study, whole, "test")
    log_batch, made = MlflowClient.log_batch, 0

    def dies(self: MlflowClient, *args: Any, **options: Any) -> None:
        nonlocal made
        made += 1
        if made > calls:
            raise ConnectionError("the server went away")
        log_batch(self, *args, **options)

    with monkeypatch.context() as patched, pytest.raises(StudyError, match="nothing is lost"):
        patched.setattr(MlflowClient, "log_batch", dies)
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
        told = connection.execute(
            "select k.value, s.value from tags s join tags k on s.run_uuid = k.run_uuid "
            "where s.key = 'sae_repro.superseded' and k.key = 'sae_repro.key'"
        ).fetchall()
    assert ("00000000", "true") in told
    assert ("99999999", "true") not in told


def test_the_projection_has_no_clock_and_no_host(study: Path) -> None:
    text = json.dumps(projection(["a", "b", "bad"], study, weights=False))
    assert text == json.dumps(projection(["a", "b", "bad"], study, weights=False))
    assert socket.gethostname() not in text
    assert "safetensors" not in text


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server on a free loopback port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
         "--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--workers", "1",
         "--artifacts-destination", str(tmp_path / "served")],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1)
            break
        except OSError:
            time.sleep(0.5)
    yield url
    process.terminate()
    process.wait(timeout=30)


@pytest.mark.slow
def test_a_real_server_gets_every_row_once(
    study: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    send(study)
    before = rows(tmp_path / "server.db")
    assert len(before["runs"]) == 4
    assert len(before["metrics"]) == 3 * 2 * STEPS + 2
    assert send(study) == Sent(runs_unchanged=4)
    assert rows(tmp_path / "server.db") == before
    assert list((tmp_path / "served").rglob("sae_weights.safetensors"))


def test_the_stage_ends_well_and_says_it_once(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sae_repro.stage import StageContext
    from sae_repro.track import run

    monkeypatch.chdir(study)
    declared = {"track": {"experiment": "test"}, "cells": {"a": {}, "b": {}, "bad": {}}}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    run(StageContext("track", declared))
    said = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in said if line.startswith("track: warning:")]) == 1
    offline = (study / "artifacts/track/runs.jsonl").read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{study}/x.db")
    run(StageContext("track", declared))
    assert (study / "artifacts/track/runs.jsonl").read_bytes() == offline


def test_the_default_store_is_the_checkouts_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path / 'mlflow.db'}"
