"""Parallel execution of independent jobs: one progress bar, and a line per finished job.

The number of workers, and where they run, depends on the machine and is no part of a study:
`SAE_REPRO_JOBS` (default: one per core) and `SAE_REPRO_EXECUTOR` (`loky`, or `ray` for many
machines).
"""

import os
import re
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sae_repro.errors import StudyError
from sae_repro.progress import bar, say

Work = Callable[[Callable[[int], None]], str | None]
"""A job: called with a function that takes the units done so far; the line to print, if any."""


def workers() -> int:
    """SAE_REPRO_JOBS, or the cores this process may use."""
    setting = os.environ.get("SAE_REPRO_JOBS", "")
    if not setting:
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
    if not re.fullmatch(r"[0-9]{1,9}", setting) or int(setting) < 1:
        raise StudyError(f"SAE_REPRO_JOBS = {setting}: must be a whole number of workers, ≥ 1")
    return int(setting)


def side_by_side(pieces: Sequence[tuple[Work, int]], *, what: str, unit: str) -> list[float]:
    """Run all `pieces`, each with its number of units; an error in one stops the others.

    A job's result must not depend on the others: the assignment to workers is not deterministic.
    Its line is printed once it is done, with its seconds; the seconds of each are returned.
    """
    from joblib import Parallel, delayed

    executor = os.environ.get("SAE_REPRO_EXECUTOR", "loky")
    if executor not in ("loky", "ray"):
        raise StudyError(f"SAE_REPRO_EXECUTOR = {executor}: allowed are loky, ray")
    if executor == "ray":
        _register_ray()
    jobs = min(workers(), len(pieces))
    with (
        tempfile.TemporaryDirectory() as folder,
        _Display(Path(folder), pieces, what, unit) as display,
        warnings.catch_warnings(),
    ):
        # loky replaces a worker whose memory has grown, and no work is lost by it
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        ended = Parallel(n_jobs=jobs, backend=executor if jobs > 1 else "sequential", batch_size=1)(
            delayed(_run)(work, display.folder, number) for number, (work, _) in enumerate(pieces)
        )
        display.finish([line for line, _ in ended])
    return [seconds for _, seconds in ended]


def _run(work: Work, folder: Path, number: int) -> tuple[str | None, float]:
    """(the job's line, its seconds); the line is left in `folder`, too, where it is shared."""
    start = time.monotonic()
    counter = _counter(folder)

    def report(done: int) -> None:
        if counter is not None:
            counter[number] = done

    line = work(report)
    seconds = time.monotonic() - start
    if line is None:
        return None, seconds
    line = f"{line}, {seconds:.1f} s"
    if counter is not None:
        partial = folder / f"{number}.partial"
        partial.write_text(line, encoding="utf-8")
        partial.rename(folder / f"{number}.line")
    return line, seconds


def _counter(folder: Path) -> "np.memmap[tuple[int], np.dtype[np.int64]] | None":
    try:
        return np.memmap(folder / "done", dtype=np.int64, mode="r+")
    except OSError:  # a worker on another machine sees no folder of this one
        return None


class _Display:
    """Shows the sum of what all workers report, and the line of each job that is done.

    Workers on this machine leave their lines in `folder`, whatever hands them their jobs: joblib
    passes on the results of some of its backends when all jobs are done, and not before.
    """

    def __init__(
        self, folder: Path, pieces: Sequence[tuple[Work, int]], what: str, unit: str
    ) -> None:
        self.folder = folder
        self._done = np.memmap(folder / "done", dtype=np.int64, mode="w+", shape=(len(pieces),))
        total = sum(units for _, units in pieces)
        self._bar = bar(f"{what} ×{len(pieces)}", unit=unit, total=total)
        self._printed: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def finish(self, lines: Sequence[str | None]) -> None:
        """Print those of `lines`, by number, that no worker left in the folder."""
        self._stop.set()
        self._thread.join()
        self._look()
        for number, line in enumerate(lines):
            if line is not None and number not in self._printed:
                say(line)

    def _poll(self) -> None:
        while not self._stop.wait(0.3):
            self._look()

    def _look(self) -> None:
        self._bar.update(int(self._done.sum()) - self._bar.n)
        for path in sorted(self.folder.glob("*.line"), key=lambda path: path.stat().st_mtime_ns):
            if int(path.stem) not in self._printed:
                self._printed.add(int(path.stem))
                say(path.read_text(encoding="utf-8"))

    def __enter__(self) -> "_Display":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish(())
        self._bar.close()


def _register_ray() -> None:
    try:
        from ray.util.joblib import register_ray  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise StudyError(
            f"SAE_REPRO_EXECUTOR = ray: ray can't be imported ({error}); pip install '.[ray]' in "
            "the repository's root"
        ) from None
    register_ray()
