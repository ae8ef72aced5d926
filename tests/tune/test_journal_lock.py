"""The journal's lock: a dead owner's is removed, a living one's waited for."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from optuna.storages.journal import JournalFileOpenLock, JournalFileSymlinkLock

from sae_repro.params import Tune
from sae_repro.tune import journal_lock
from sae_repro.tune.journal_lock import JournalLock
from sae_repro.tune.optuna_journal import Journal

TUNE = Tune(recipes={"a": {"expansion": 4, "activation": "topk", "k": {"low": 2, "high": 8}}})

HOLD = """
import sys, time
from pathlib import Path
from sae_repro.tune.journal_lock import JournalLock
lock = JournalLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.readline()
lock.release()
"""


def holder(path: Path) -> "subprocess.Popen[str]":
    """A process that holds the lock of `path` until it gets a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def acquiring(lock: JournalLock) -> tuple[threading.Thread, threading.Event]:
    """A thread that takes the lock and gives it back; the event says that it had it."""
    had = threading.Event()

    def take() -> None:
        lock.acquire()
        had.set()
        lock.release()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return thread, had


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journal by the relative path that the stage gives."""
    monkeypatch.chdir(tmp_path)
    path = Path("tune/journal.log")
    Journal(path, TUNE, {"x": 1})
    return path


@pytest.mark.parametrize("end", ["killed", "released"])
def test_a_second_writer_waits_for_a_living_one_only(journal: Path, end: str) -> None:
    process = holder(journal)
    thread, had = acquiring(JournalLock(journal))
    assert not had.wait(1.0)
    assert Path("tune/journal.log.lock").is_symlink()
    if end == "killed":
        process.send_signal(signal.SIGKILL)
        process.communicate()
    else:
        process.communicate("\n")
    assert had.wait(20)
    thread.join()
    assert not Path("tune/journal.log.lock").is_symlink()


def test_a_study_goes_on_after_a_kill_between_lock_and_unlock(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once: no grace period passes, after which the link would be removed with a message."""
    process = holder(journal)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert Path("tune/journal.log.lock").exists()
    Journal(journal, TUNE, {"x": 1})
    assert capsys.readouterr().err == ""
    assert not os.path.lexists("tune/journal.log.lock")


@pytest.mark.parametrize("target", ["tune/journal.log", "absolute", "nowhere", "a file"])
def test_what_another_writer_left_is_removed_after_a_while(
    journal: Path, target: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A relative link, whose target is missing from where it lies, blocked every later run."""
    monkeypatch.setattr(journal_lock, "GRACE_S", 0.3)
    if target == "a file":
        assert JournalFileOpenLock(str(journal)).acquire()
    else:
        link = journal.with_name("journal.log.lock")
        link.symlink_to(journal.absolute() if target == "absolute" else target)
    Journal(journal, TUNE, {"x": 1})._study.set_user_attr("a", 1)
    assert "so a killed writer left it" in capsys.readouterr().err
    assert not os.path.lexists("tune/journal.log.lock")


@pytest.mark.parametrize("path", ["relative", "absolute"])
def test_writers_that_use_optuna_alone_are_waited_for(journal: Path, path: str) -> None:
    """Such as the dashboard, wherever it was started."""
    theirs = JournalFileSymlinkLock(str(journal.absolute() if path == "absolute" else journal))
    theirs.acquire()
    thread, had = acquiring(JournalLock(journal))
    assert not had.wait(1.0)
    theirs.release()
    assert had.wait(20)
    thread.join()


def test_the_lock_stays_the_journals_in_another_folder(
    journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = JournalLock(journal)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    lock.acquire()
    assert (tmp_path / "tune/journal.log.lock").exists()
    lock.release()
    assert not os.path.lexists(tmp_path / "tune/journal.log.lock")


def test_a_lock_given_back_can_be_taken_again(journal: Path) -> None:
    lock = JournalLock(journal)
    for _ in range(3):
        assert lock.acquire()
        lock.release()
