"""The process that talks to MLflow: ended where a server does not get on, and with its parent."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_repro.deadline import OverdueError
from sae_repro.errors import StudyError
from sae_repro.params import read_yaml
from sae_repro.stage import StageContext
from sae_repro.track import apart as apart_module
from sae_repro.track import patience, run
from sae_repro.track.apart import apart
from sae_repro.track.patience import Patience, Reporting

from ..peers import MODES, SLOW, Peer
from .conftest import CELL

pytestmark = pytest.mark.timeout(120)


def test_results_and_faults_come_through(tmp_path: Path) -> None:
    assert apart(os.path.join, "a", "b") == "a/b"
    with pytest.raises(RuntimeError, match="TypeError: "):
        apart(os.path.join, 3)  # type: ignore[arg-type]
    with pytest.raises(StudyError, match=r"nothing\.yaml"):
        apart(read_yaml, tmp_path / "nothing.yaml")
    with pytest.raises(RuntimeError, match=r"was ended \(7\)"):
        apart(os._exit, 7)


def test_what_does_not_get_on_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart_module, "START_S", 0.5)
    with pytest.raises(OverdueError, match=r"does not get on: over 60 s .* over 6 s for each"):
        apart(time.sleep, 600)
    assert children() == []


def test_an_answer_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where this process holds more than that itself."""
    held = bytearray(b"x" * (600 << 20))
    monkeypatch.setattr(apart_module, "MOST_MEMORY", 100 << 20)
    with pytest.raises(MemoryError, match="fills the memory"):
        apart(eval, "(b'x' * (400 << 20), __import__('time').sleep(600))")
    del held


def test_the_process_ends_when_its_parent_is_killed() -> None:
    code = "import time; from sae_repro.track.apart import apart; apart(time.sleep, 600)"
    parent = subprocess.Popen([sys.executable, "-c", code])
    while not (found := psutil.Process(parent.pid).children()):
        time.sleep(0.05)
    time.sleep(1.0)  # it has its order
    parent.kill()
    parent.wait()
    found[0].wait(60)


def children() -> list[int]:
    return [p.pid for p in psutil.Process(os.getpid()).children()
            if "sae_repro.track.apart" in p.cmdline()]  # fmt: skip


@given(st.lists(st.floats(0.0, 100.0), max_size=60))
def test_a_server_has_a_minute_and_six_seconds_for_each_answer(seconds: list[float]) -> None:
    """Whatever takes how long: never more in all, and never cut off while it keeps to that."""
    now = 1000.0
    with pytest.MonkeyPatch.context() as patched:
        for name in ("TIMEOUT", "MAX_RETRIES"):
            patched.delenv(f"MLFLOW_HTTP_REQUEST_{name}", raising=False)
        patched.setattr(patience.time, "monotonic", lambda: now)
        waiting = Patience()
        waiting.start(60.0)
        for number, taken in enumerate(seconds):
            if taken >= waiting.left() - 1e-6:
                assert max(seconds[: number + 1]) > 6.0, "it kept to its limits"
                now += waiting.left()
                break
            now += taken
            waiting.answered(0.0)
            assert waiting.left() <= 60.0 + 1e-6
        assert now - 1000.0 <= 60.0 + 6.0 * len(seconds) + 1e-6


def test_limits_of_the_environment_are_not_undercut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "100")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    waiting = Patience()
    waiting.start(0.0)
    waiting.answered(0.0)
    assert 290 < waiting.left() <= 300
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon")
    assert patience.per_call() == 9.0


def test_an_upload_has_time_by_its_size(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(100_000))
    told: list[float] = []

    class Client:
        def log_artifact(self, run_id: str, path: str, folder: str | None = None) -> str:
            return f"{run_id} {Path(path).name} {told}"

    sent = Reporting(Client(), told.append).log_artifact("r", str(tmp_path / "weights"), None)
    assert sent == "r weights [0.0, 5.0]"
    assert told == [0.0, 5.0, 0.0]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_a_server_is_one_warning(
    mode: str,
    peer: Callable[[str], Peer],
    make_study: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(patience, "SILENCE_S", 3.0)
    monkeypatch.setattr(apart_module, "MOST_MEMORY", 600 << 20)
    monkeypatch.chdir(make_study(tmp_path / "study"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", peer(mode).url)
    run(
        StageContext(
            "track", {"track": {"experiment": "test"}, "recipes": {}, "cells": {"a": CELL}}
        )
    )
    out, err = capfd.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("track: warning: MLflow at ")
    assert line.endswith("; retry later: `sae-repro track` sends the missing runs")
    if mode in SLOW[:2] or mode == "busy for ten minutes":
        assert "it does not get on: over 3 s without an answer" in line
    if mode == "floods":
        assert "an answer of the server fills the memory" in line or "does not get on" in line
    assert Path("artifacts/track/runs.jsonl").is_file()
