"""Curves while training: the same end as without them, whatever becomes of training or server."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from sae_repro import live
from sae_repro.files import write_json
from sae_repro.live import ORDER, Followed, curves
from sae_repro.params import read_yaml
from sae_repro.stage import STATE
from sae_repro.track.live import Following, rows_of
from sae_repro.track.mlflow_sync import sync
from sae_repro.track.projection import projection
from sae_repro.track.unfinished import LIVE, PLACE
from sae_repro.training import Journal
from sae_repro.training.checkpoint import save_checkpoint

from ..peers import Peer
from .conftest import STEPS, cells_named, dying_log_batch, write_cell

ROOT = Path(__file__).resolve().parents[2]
CELLS = {
    name: {"expansion": 2, "penalty": "l1", "lambda": 0.1, "seed": seed}
    for seed, name in enumerate("ab")
}
"""As `write_cell` trains them."""
SAES = {name: Followed(key=f"{number}" * 8, hook="h") for number, name in enumerate("ab")}
ROWS = [{"step": s, "tokens": 8 * s, "loss": 1 / (s + 1), "fvu": 0.5} for s in range(STEPS)]


@pytest.fixture
def study(
    make_study: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The small study, of which nothing has been sent, as the working folder."""
    folder = make_study(tmp_path / "study")
    write_params(folder, CELLS)
    (folder / STATE).mkdir()
    monkeypatch.chdir(folder)
    return folder


def write_params(folder: Path, cells: dict[str, Any], seconds: float = 0.2) -> None:
    """The root study's params.yaml with other cells."""
    track = {"experiment": "test", "live_seconds": seconds}
    study = {**read_yaml(ROOT / "params.yaml"), "cells": cells, "track": track,
             "evaluate": {}, "report": {}}  # fmt: skip
    (folder / "params.yaml").write_text(json.dumps(study))


def checkpoint(name: str, rows: list[dict[str, Any]]) -> None:
    """A checkpoint with a journal of `rows`."""
    path = STATE / "checkpoints" / SAES[name]["key"]
    save_checkpoint(path, 0, {"W_dec": torch.zeros(1)}, Journal(metrics=rows))


def finish(name: str) -> None:
    """The folder of the finished cell in the store."""
    shutil.copytree(Path("artifacts/train") / name, STATE / "cells" / SAES[name]["key"])


def active(folder: Path) -> dict[str, list[Any]]:
    """Runs, tags, parameters and metric rows, without ids, times and what was deleted."""
    alive = "join runs r on t.run_uuid = r.run_uuid where r.lifecycle_stage = 'active'"
    with sqlite3.connect(folder / "mlflow.db") as connection:
        return {
            name: sorted(connection.execute(f"select r.name, {columns} from {name} t {alive}"))
            for name, columns in {
                "params": "t.key, t.value",
                "metrics": "t.key, t.value, t.step, t.timestamp - r.start_time",
                "latest_metrics": "t.key, t.value, t.step, t.timestamp - r.start_time",
                "runs": "t.status, t.end_time - t.start_time",
                "tags": "t.key, case t.key when 'sae_repro.run_id' then 0 else t.value end",
            }.items()
        }


def histories(folder: Path) -> dict[str, list[int]]:
    """The steps of train/loss of each run by name and status."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    [experiment] = [e for e in client.search_experiments() if e.name == "test"]
    return {
        f"{run.info.run_name} {run.info.status}": sorted(
            m.step for m in client.get_metric_history(run.info.run_id, "train/loss")
        )
        for run in client.search_runs([experiment.experiment_id])
    }


def track(folder: Path) -> None:
    runs = projection(cells_named(("a", "b", "bad")), folder, weights=True)
    sync(runs, folder, folder, "test")


@pytest.fixture
def undisturbed(study: Path, tmp_path: Path, empty_database: Path) -> dict[str, list[Any]]:
    """What `track` alone sends of the study."""
    other = tmp_path / "undisturbed" / study.name
    shutil.copytree(study, other)
    track(other)
    return active(other)


def test_curves_grow_with_the_checkpoints_and_the_end_is_as_without_them(
    study: Path, undisturbed: dict[str, list[Any]]
) -> None:
    following = Following(SAES)
    checkpoint("a", ROWS[:3])
    following.send(over=False)
    assert histories(study) == {"a RUNNING": [0, 1, 2]}
    checkpoint("a", ROWS[:7])
    checkpoint("b", ROWS[:2])
    following.send(over=False)
    following.send(over=False)
    assert histories(study) == {"a RUNNING": list(range(7)), "b RUNNING": [0, 1]}
    finish("a")
    following.send(over=True)
    assert histories(study) == {"a RUNNING": list(range(STEPS)), "b KILLED": [0, 1]}
    track(study)
    assert active(study) == undisturbed


def test_the_next_training_goes_on_with_the_run_of_a_killed_one(
    study: Path, undisturbed: dict[str, list[Any]]
) -> None:
    checkpoint("a", ROWS[:3])
    Following(SAES).send(over=True)
    checkpoint("a", ROWS[:9])
    Following(SAES).send(over=False)
    assert histories(study) == {"a RUNNING": list(range(9))}
    track(study)
    assert active(study) == undisturbed


@pytest.mark.parametrize("change", ["other rows", "fewer rows", "other key", "cell gone"])
def test_rows_of_another_training_are_never_mixed_in(
    study: Path, undisturbed: dict[str, list[Any]], change: str
) -> None:
    other = [{**row, "loss": 7.0} for row in ROWS]
    checkpoint("a", other[:5])
    saes = dict(SAES)
    if change == "other key":
        saes["a"] = Followed(key="9" * 8, hook="h")
        shutil.copy(STATE / "checkpoints" / SAES["a"]["key"], STATE / "checkpoints/99999999")
    if change == "cell gone":
        write_params(study, {"gone": CELLS["a"]})
        saes["gone"] = saes.pop("a")
    Following(saes).send(over=False)
    assert [len(steps) for steps in histories(study).values()] == [5]
    if change in ("other rows", "fewer rows"):
        checkpoint("a", ROWS[: 8 if change == "other rows" else 2])
        Following(SAES).send(over=False)
        assert [len(steps) for steps in histories(study).values()] == [
            8 if change == "other rows" else 2
        ]
    track(study)
    assert active(study) == undisturbed


def test_a_cell_with_a_result_gets_no_second_run(study: Path) -> None:
    track(study)
    before = active(study)
    checkpoint("a", ROWS[:3])
    Following(SAES).send(over=True)
    assert active(study) == before


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
def test_a_takeover_that_is_interrupted_is_completed_by_the_next(
    study: Path, undisturbed: dict[str, list[Any]], calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint("a", ROWS[:3])
    Following(SAES).send(over=False)
    with monkeypatch.context() as patched, pytest.raises(Exception, match="went away"):
        patched.setattr(MlflowClient, "log_batch", dying_log_batch(calls))
        track(study)
    track(study)
    assert active(study) == undisturbed


def test_a_missing_database_is_made(study: Path) -> None:
    (study / "mlflow.db").unlink()
    checkpoint("a", ROWS[:3])
    Following(SAES).send(over=False)
    assert histories(study) == {"a RUNNING": [0, 1, 2]}
    assert not (STATE / "live.db").exists()


def test_half_a_checkpoint_is_no_checkpoint(study: Path) -> None:
    checkpoint("a", ROWS[:3])
    path = STATE / "checkpoints" / SAES["a"]["key"]
    path.write_bytes(path.read_bytes()[:40])
    assert rows_of(SAES["a"]["key"]) == rows_of("no such key") == []


@pytest.fixture
def deaf() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def processes() -> list[int]:
    """The processes that follow a training, children of this one."""
    import psutil

    return [p.pid for p in psutil.Process(os.getpid()).children()
            if "sae_repro.track.live" in p.cmdline()]  # fmt: skip


@pytest.mark.slow
def test_a_deaf_server_costs_one_warning_and_the_process_ends_with_the_stage(
    study: Path, deaf: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", deaf.replace("://", "://me:hunter2@"))
    checkpoint("a", ROWS[:3])
    said = ""
    with curves(SAES):
        [pid] = processes()
        while "warning" not in said:
            said += capfd.readouterr().err
    assert pid not in processes()
    said += capfd.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert said.startswith("train: warning: no curves while training: MLflow at http://***@")
    assert "hunter2" not in said


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_dripping_server_ends_the_process_with_one_warning(
    study: Path, peer: Callable[[str], Peer], capfd: pytest.CaptureFixture[str]
) -> None:
    """A time-out of one read never comes: without a deadline it would follow no curve for ever."""
    checkpoint("a", ROWS[:3])
    write_json(ORDER, {"seconds": 0.1, "saes": SAES})
    code = "from sae_repro.track import live, patience; patience.SILENCE_S = 1.0; live.main()"
    following = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "MLFLOW_TRACKING_URI": peer("drips headers").url,
             "MLFLOW_HTTP_REQUEST_TIMEOUT": "1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
        stdin=subprocess.PIPE,
    )  # fmt: skip
    assert following.wait(90) == 0
    assert following.stdin is not None
    following.stdin.close()
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("train: warning: no curves while training: MLflow at http://127.")
    assert "over 1 s without an answer" in line
    assert line.endswith("; the stage `track` sends them")


def test_an_error_of_training_passes_and_ends_the_process(study: Path) -> None:
    with pytest.raises(ZeroDivisionError), curves(SAES):
        assert len(processes()) == 1
        _ = 1 / 0
    assert processes() == []


def test_the_process_ends_when_its_stage_is_killed(study: Path) -> None:
    stage = subprocess.Popen(
        [sys.executable, "-c",
         "import time; from sae_repro.live import curves\n"
         f"with curves({dict(SAES)!r}): print(flush=True); time.sleep(600)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert stage.stdout is not None
    stage.stdout.readline()
    import psutil

    [process] = psutil.Process(stage.pid).children()
    stage.kill()
    stage.wait()
    stage.stdout.close()
    process.wait(timeout=120)


def test_its_niceness_counts_and_ctrl_c_is_not_for_it(study: Path) -> None:
    # Linux gives each session an equal share, whatever the niceness of the processes in it
    process = live._start(SAES)
    assert process is not None
    try:
        assert os.getsid(process.pid) == os.getsid(0)
        assert os.getpgid(process.pid) == process.pid != os.getpgrp()
    finally:
        live._end(process)


def test_zero_seconds_start_nothing(study: Path) -> None:
    write_params(study, CELLS, seconds=0)
    with curves(SAES):
        assert processes() == []


def test_a_process_that_cannot_start_is_one_warning(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live.sys, "executable", str(study / "no python here"))
    with curves(SAES):
        pass
    assert capsys.readouterr().err.startswith("train: warning: no curves while training: ")


def test_the_tag_of_unfinished_runs_is_gone_in_the_end(study: Path) -> None:
    checkpoint("a", ROWS[:3])
    Following(SAES).send(over=False)
    assert any(key == LIVE for _, key, _ in active(study)["tags"])
    write_cell(study, "a", key=SAES["a"]["key"])
    track(study)
    assert not any(key == LIVE for _, key, _ in active(study)["tags"])


def test_an_unfinished_run_of_another_folder_is_left_alone(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a shared server, another folder may be training the same cell of a study of that name."""
    checkpoint("a", ROWS[:3])
    with monkeypatch.context() as patch:
        patch.setattr("sae_repro.track.unfinished.place_of", lambda folder: "elsewhere")
        Following(SAES).send(over=False)
    Following(SAES).send(over=False)
    assert [run for run, *_ in active(study)["runs"]] == ["a", "a"]
    write_cell(study, "a", key=SAES["a"]["key"])
    track(study)
    places = [value for run, key, value in active(study)["tags"] if (run, key) == ("a", PLACE)]
    assert places == ["elsewhere"]
