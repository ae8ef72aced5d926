"""Parallel execution of independent jobs under one progress bar.

The number of workers, and where they run, depends on the machine and is no part of a study:
`SAE_REPRO_JOBS` (default: one per core) and `SAE_REPRO_EXECUTOR` (`loky`, or `ray` for many
machines).
"""

import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sae_repro.errors import StudyError

Work = Callable[[Callable[[int], None]], None]
"""A job: called with a function that takes the units done so far."""


def workers() -> int:
    """SAE_REPRO_JOBS, or the cores this process may use."""
    setting = os.environ.get("SAE_REPRO_JOBS", "")
    if not setting:
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
    if not setting.isdigit() or int(setting) < 1:
        raise StudyError(f"SAE_REPRO_JOBS = {setting}: must be a whole number of workers, ≥ 1")
    return int(setting)


def side_by_side(pieces: Sequence[tuple[Work, int]], *, what: str, unit: str) -> None:
    """Run all `pieces`, each with its number of units; an error in one stops the others.

    A job's result must not depend on the others: the assignment to workers is not deterministic.
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
        _Bar(Path(folder), pieces, what, unit) as bar,
        warnings.catch_warnings(),
    ):
        # loky replaces a worker whose memory has grown, and no work is lost by it
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        Parallel(n_jobs=jobs, backend=executor if jobs > 1 else "sequential", batch_size=1)(
            delayed(_run)(work, bar.path, number) for number, (work, _) in enumerate(pieces)
        )


def _run(work: Work, path: Path, number: int) -> None:
    try:
        counter = np.memmap(path, dtype=np.int64, mode="r+")
    except OSError:  # a worker on another machine sees no counter of this one
        work(lambda done: None)
        return

    def report(done: int) -> None:
        counter[number] = done

    work(report)


class _Bar:
    """Shows the sum of what all workers report; quiet when standard error is no terminal."""

    def __init__(
        self, folder: Path, pieces: Sequence[tuple[Work, int]], what: str, unit: str
    ) -> None:
        from tqdm import tqdm

        self.path = folder / "done"
        self._done = np.memmap(self.path, dtype=np.int64, mode="w+", shape=(len(pieces),))
        total = sum(units for _, units in pieces)
        self._bar = tqdm(
            total=total, desc=f"{what} ×{len(pieces)}", unit=unit, unit_scale=True, disable=None
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def _poll(self) -> None:
        while not self._stop.wait(0.3):
            self._bar.update(int(self._done.sum()) - self._bar.n)

    def __enter__(self) -> "_Bar":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._bar.update(int(self._done.sum()) - self._bar.n)
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
