"""Workers that are lost, full, faulty or stopped: one line each, and no worker left behind."""

import gc
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from cloudpickle import register_pickle_by_value
from joblib import wrap_non_picklable_objects

from sae_repro.errors import StudyError
from sae_repro.garbage import FIRST
from sae_repro.sidebyside import Work, WorkerLostError, side_by_side

register_pickle_by_value(sys.modules[__name__])  # workers can't import a test
pytestmark = pytest.mark.timeout(120)


class Job:
    """A job whose second one does what `act` says."""

    def __init__(self, number: int, act: str) -> None:
        self.number, self.act, self.name = number, act, f"cell {number}"

    def __call__(self, report: Callable[[int], None]) -> str | None:
        report(1)
        if self.number == 1:
            match self.act:
                case "SIGKILL" | "SIGSEGV" | "SIGABRT" | "SIGTERM":
                    os.kill(os.getpid(), signal.Signals[self.act])
                    time.sleep(60)
                case "full":
                    raise MemoryError
                case "PyTorch is full":
                    import torch

                    torch.empty(1 << 50)
                case "bug":
                    raise KeyError("no such thing")
                case "study error":
                    raise StudyError("this file, that column")
                case "threshold":
                    return f"collects after {gc.get_threshold()[0]} objects"
        return f"job {self.number}"


def run(act: str, *, kept: bool = True) -> None:
    pieces: list[tuple[Work, int]] = [
        (wrap_non_picklable_objects(Job(number, act)), 1) for number in range(3)
    ]
    side_by_side(pieces, what="train", unit="step", kept=kept)


@pytest.fixture(autouse=True)
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAE_REPRO_JOBS", "2")
    monkeypatch.delenv("SAE_REPRO_EXECUTOR", raising=False)


@pytest.mark.parametrize("act", ["SIGKILL", "SIGTERM", "SIGSEGV", "SIGABRT"])
def test_a_lost_worker_is_one_line_with_what_to_do(
    act: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WorkerLostError) as caught:
        run(act)
    message = str(caught.value)
    assert "\n" not in message
    assert "cell 1" in message.partition("(in work: ")[2]
    assert message.endswith("what is finished is kept: run the same command to go on")
    if act in ("SIGSEGV", "SIGABRT"):
        assert f"a worker crashed ({act}; PYTHONFAULTHANDLER=1 shows where)" in message
    else:
        assert "memory was full: set SAE_REPRO_JOBS to fewer than the 2 of this run" in message
    assert "Traceback" not in capfd.readouterr().err
    with pytest.raises(KeyError):
        run("bug")  # the next run has workers again


def test_a_stage_that_keeps_nothing_does_not_promise_it() -> None:
    with pytest.raises(WorkerLostError, match=r"; run the same command again$"):
        run("SIGKILL", kept=False)


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("act", ["full", "PyTorch is full"])
def test_full_memory_is_one_line_that_names_the_cell(
    act: str, jobs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAE_REPRO_JOBS", jobs)
    with pytest.raises(StudyError, match=r"^cell 1: memory is full \(.*SAE_REPRO_JOBS"):
        run(act)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_fault_of_the_program_names_the_cell(jobs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAE_REPRO_JOBS", jobs)
    with pytest.raises(KeyError, match="no such thing") as caught:
        run("bug")
    assert caught.value.__notes__ == ["in the job cell 1"]
    with pytest.raises(StudyError, match=r"^this file, that column$"):
        run("study error")


def test_workers_collect_garbage_rarely(capfd: pytest.CaptureFixture[str]) -> None:
    run("threshold")
    assert f"collects after {FIRST} objects" in capfd.readouterr().out


class Loading:
    """A job of a worker that loads a model after its first job: 400 MB that stay."""

    def __call__(self, report: Callable[[int], None]) -> str:
        held = vars(sys).setdefault("_held", [])  # whatever becomes of the job
        held.append(b"x" * (400 << 20 if len(held) == 1 else 1))
        time.sleep(1.1)  # loky looks at most once a second
        return f"worker {os.getpid()}"


def test_a_worker_keeps_what_it_has_loaded(capfd: pytest.CaptureFixture[str]) -> None:
    side_by_side([(wrap_non_picklable_objects(Loading()), 1)] * 6, what="evaluate", unit="SAE")
    assert 1 <= len(set(re.findall(r"worker \d+", capfd.readouterr().out))) <= 2


ALONE = """
import os
from sae_repro.sidebyside import side_by_side
def job(report):
    return f"process {os.getpid()}"
side_by_side([(job, 1)] * 3, what="train", unit="step")
"""


def test_where_no_worker_can_be_started_jobs_run_one_after_another() -> None:
    """joblib would run them in threads of the stage, where what ends a worker ends the stage."""
    stage = subprocess.run(
        [sys.executable, "-c", ALONE], env={**os.environ, "JOBLIB_MULTIPROCESSING": "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert stage.returncode == 0, stage.stderr
    assert len(re.findall(r"process \d+", stage.stdout)) == 3
    assert "can start no workers here (JOBLIB_MULTIPROCESSING=0" in stage.stderr
    assert "UserWarning" not in stage.stderr


WAITING = """
import os
import signal
import time
from sae_repro.errors import StudyError
from sae_repro.sidebyside import side_by_side
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests are a background job
def job(report):
    os.write(1, b"begun\\n")  # at once, as the other worker writes, too
    time.sleep(600)
try:
    side_by_side([(job, 1), (job, 1)], what="train", unit="step")
except StudyError as error:
    print("train:", error)
"""


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stop_is_one_line_and_ends_the_workers(
    number: signal.Signals, jobs: str, tmp_path: Path
) -> None:
    """Also where there is no time for a line: they would go on beside the next run."""
    script = tmp_path / "waiting.py"
    script.write_text(WAITING)
    stage = subprocess.Popen(
        [sys.executable, "-W", "ignore", script], env={**os.environ, "SAE_REPRO_JOBS": jobs},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert stage.stdout is not None
    for _ in range(int(jobs)):
        assert stage.stdout.readline() == "begun\n"
    workers = psutil.Process(stage.pid).children(recursive=True)
    stage.send_signal(number)
    # it ends once nobody holds the pipes: no worker is left then
    out, err = stage.communicate(timeout=60)
    psutil.wait_procs(workers, timeout=60)
    assert not [worker for worker in workers if worker.is_running()]
    if number != signal.SIGKILL:
        assert out == (
            "train: stopped from outside; what is finished is kept: run the same command to go on\n"
        )
        assert "Traceback" not in err
