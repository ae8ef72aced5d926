"""Whole small studies that are killed, and lose what was not synced: they end with the same bits.

A study runs stage after stage in a forked process, without DVC: seconds for all of it. A stage is
done, as for DVC, once what it wrote is recorded and there unchanged.
"""

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sae_repro.files import sha256_file, sha256_folder, write_text

from .conftest import small_text
from .in_process import ORDINARY, carry_out, study

pytestmark = pytest.mark.slow

STAGES = ("corpus", "subject", "extract", "train", "evaluate", "judge", "control", "compare")
PRELOADED = [
    "sae_repro.subject.gpt2",
    "sae_repro.readers.agreement",
    "sae_repro.train.makers.trained",
    "sae_repro.evaluate.evaluation",
    "sae_repro.compare.figures",
]


def declared(pin: str) -> dict[str, Any]:
    """A study of few and quick results, with a checkpoint after every step."""
    whole = study(pin)
    whole["train"] |= {"epochs": 3, "checkpoint_every": 1}
    whole["evaluate"]["metrics"] = []
    whole["cells"] = {name: ORDINARY[name] for name in ("topk", "batchtopk", "neurons")}
    return whole


def go(folder: Path, settings: dict[str, Any], synced: Path | None, ready: Any) -> None:
    """The stages that are not done, in a process of its own; in `synced`, what reached the disk."""
    os.chdir(folder)
    os.environ["SAE_REPRO_JOBS"] = "1"
    if synced is not None:
        note_syncs(synced)
    ready.set()
    for stage in STAGES:
        out = Path("reports" if stage == "compare" else f"artifacts/{stage}")
        record = Path(f".sae-repro/{stage}.done")
        if record.is_file() and out.is_dir() and record.read_text() == sha256_folder(out):
            continue
        carry_out(settings, stage)
        write_text(record, sha256_folder(out))


def note_syncs(log: Path) -> None:
    """From here on, os.fsync appends the file that it put on the disk to `log`, and its time."""
    fsync, file = os.fsync, os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        os.write(file, f"{status.st_ino} {status.st_mtime_ns}\n".encode())

    os.fsync = noted


@dataclass
class Small:
    """A study in a folder, run again and again."""

    folder: Path
    settings: dict[str, Any]
    synced: Path | None = None
    """The log of what is on the disk; None: all that was written is."""

    @classmethod
    def at(cls, folder: Path, *, power_loss: bool = False) -> "Small":
        folder.mkdir(parents=True)
        settings = declared(small_text(folder / "text.jsonl"))
        return cls(folder, settings, folder.with_suffix(".log") if power_loss else None)

    def run(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Whether it came to its end before `stopped` said so; it is killed else."""
        before = self._states()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        ready = context.Event()
        process = context.Process(target=go, args=(self.folder, self.settings, self.synced, ready))
        process.start()
        ready.wait()
        while process.is_alive() and not stopped():
            process.join(0.0005)
        ended = not process.is_alive()
        process.kill()
        process.join()
        assert not ended or process.exitcode == 0
        if not ended and self.synced is not None:
            self.lost = self._lose(before)
        return ended

    def _states(self) -> dict[tuple[int, int], Path]:
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {(s.st_ino, s.st_mtime_ns): path for path in files for s in [path.stat()]}

    def _lose(self, before: dict[tuple[int, int], Path]) -> int:
        """Empty what was written since `before` and never synced after; how many files.

        ext4 and XFS leave a file without its bytes where it was renamed before they were written.
        """
        assert self.synced is not None
        lines = self.synced.read_text().splitlines() if self.synced.exists() else []
        safe = {tuple(map(int, line.split())) for line in lines} | before.keys()
        lost = [
            path for state, path in self._states().items()
            if state not in safe and path.stat().st_size
        ]  # fmt: skip
        for path in lost:
            path.write_bytes(b"")
        return len(lost)

    def files(self) -> dict[str, str]:
        """Hashes of its results."""
        return {
            path.relative_to(self.folder).as_posix(): sha256_file(path)
            for place in ("artifacts", "reports")
            for path in (self.folder / place).rglob("*")
            if path.is_file()
        }


def after(seconds: float) -> Callable[[], bool]:
    """Whether they have passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def in_replacement(folder: Path, which: int) -> Callable[[], bool]:
    """Whether a checkpoint is being replaced for about the `which`-th time."""
    seen: set[int] = set()

    def stopped() -> bool:
        try:
            temporary = next(iter((folder / ".sae-repro/checkpoints").glob(".*.tmp")), None)
            if temporary is not None:
                seen.add(temporary.stat().st_ino)
        except OSError:  # it was replaced meanwhile
            return False
        return temporary is not None and len(seen) > which

    return stopped


def killed(small: Small, rng: random.Random, kills: int, whole: float) -> tuple[int, int]:
    """Kill the study so often, or until it ends; kills, and how many of them in a replacement."""
    times = replacements = 0
    while times < kills:
        in_checkpoint = rng.random() < 0.4
        late = after(rng.uniform(0, whole / 3) if not in_checkpoint else whole * 2)
        at = in_replacement(small.folder, rng.randrange(8)) if in_checkpoint else late
        if small.run(lambda at=at, late=late: at() or late()):
            break
        times += 1
        replacements += in_checkpoint
    return times, replacements


@pytest.mark.timeout(3600)
def test_killed_and_without_what_was_never_synced_it_ends_with_the_same_bits(
    tmp_path: Path,
) -> None:
    start = time.monotonic()
    undisturbed = Small.at(tmp_path / "undisturbed")
    assert undisturbed.run()
    whole = time.monotonic() - start
    expected = undisturbed.files()
    for number, power_loss in enumerate((False, True)):
        small = Small.at(tmp_path / f"killed-{number}", power_loss=power_loss)
        kills, replacements = killed(small, random.Random(number), 8, whole)
        assert kills and small.run()
        assert small.files() == expected
        print(f"{kills} kills, {replacements} of them in the replacement of a checkpoint")
