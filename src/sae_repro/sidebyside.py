"""Parallel execution of independent jobs: one progress bar, and a line per finished job.

The number of workers, and where they run, depends on the machine and is no part of a study:
`SAE_REPRO_JOBS` (default: one per core) and `SAE_REPRO_EXECUTOR` (`loky`, or `ray` for many
machines). Lost workers, memory that is full, and a stop from outside are one line each.
"""

import faulthandler
import math
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from sae_repro.errors import StudyError
from sae_repro.garbage import collect_rarely
from sae_repro.jobdisplay import Display
from sae_repro.sharing import sharing, written

Work = Callable[[Callable[[int], None]], str | None]
"""A job: called with a function that takes the units done so far; the line to print, if any."""


class WorkerLostError(StudyError):
    """A worker was ended from outside, or crashed; the jobs that it had can be run again."""


def workers() -> int:
    """SAE_REPRO_JOBS, or the cores this process may use."""
    return workers_asked_for() or (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


def workers_asked_for() -> int | None:
    """SAE_REPRO_JOBS; None where it is not set."""
    setting = os.environ.get("SAE_REPRO_JOBS", "")
    if not setting:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", setting) or int(setting) < 1:
        raise StudyError(f"SAE_REPRO_JOBS = {setting}: must be a whole number of workers, ≥ 1")
    return int(setting)


def side_by_side(
    pieces: Sequence[tuple[Work, int]], *, what: str, unit: str, kept: bool = True
) -> list[float]:
    """Run all `pieces`, each with its number of units; an error in one stops the others.

    A job's result must not depend on the others: the assignment to workers is not deterministic.
    Its line is printed once it is done, with its seconds; the seconds of each are returned. `kept`:
    whether another run goes on with the jobs that are done. WorkerLostError where a worker is
    killed; StudyError where memory is full, and after Ctrl-C or SIGTERM, which end the workers.
    """
    executor = os.environ.get("SAE_REPRO_EXECUTOR", "loky")
    if executor not in ("loky", "ray"):
        raise StudyError(f"SAE_REPRO_EXECUTOR = {executor}: allowed are loky, ray")
    names = [_name(work, number) for number, (work, _) in enumerate(pieces)]
    units = [units for _, units in pieces]
    with (
        tempfile.TemporaryDirectory() as folder,
        Display(Path(folder), names, units, what, unit) as display,
    ):
        run = _on_ray if executor == "ray" else _on_this_machine
        try:
            with _sigterm_as_ctrl_c(), sharing(written(pieces), what):
                ended = run({number: work for number, (work, _) in enumerate(pieces)}, display)
        except WorkerLostError as error:
            raise WorkerLostError(f"{error}{display.in_work()}; {_again(kept)}") from None
        except KeyboardInterrupt:
            raise StudyError(f"stopped from outside; {_again(kept)}") from None
        display.finish([ended[number][0] for number in range(len(pieces))])
    return [ended[number][1] for number in range(len(pieces))]


def _again(kept: bool) -> str:
    go_on = "what is finished is kept: run the same command to go on"
    return go_on if kept else "run the same command again"


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM would end this process at once and leave its workers behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


Ended = dict[int, tuple[str | None, float]]
"""By the number of a job, its line and its seconds."""


def _on_this_machine(works: Mapping[int, Work], display: Display) -> Ended:
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import BrokenProcessPool
    from joblib.parallel import BACKENDS

    jobs = min(workers(), len(works))
    if jobs > 1 and "loky" not in BACKENDS:  # threads of this process would take its place
        print(
            "warning: Python can start no workers here (JOBLIB_MULTIPROCESSING=0 is set, or the "
            "system has no semaphores: is /dev/shm there?); one after another",
            file=sys.stderr,
        )
        jobs = 1
    parent = os.getpid() if jobs > 1 else None
    try:
        ended = Parallel(n_jobs=jobs, backend="loky" if jobs > 1 else "sequential", batch_size=1)(
            delayed(_run)(work, display.folder, number, parent) for number, work in works.items()
        )
    except BrokenProcessPool as error:
        raise WorkerLostError(_loss(str(error), jobs)) from None
    return dict(zip(works, ended, strict=True))


def _loss(message: str, jobs: int) -> str:
    """What happened to a worker by the exit codes in loky's message, and what to do."""
    crash = re.search(r"SIG(?:SEGV|BUS|ILL|FPE|ABRT)", message)
    if crash:
        return f"a worker crashed ({crash[0]}; PYTHONFAULTHANDLER=1 shows where)"
    return (
        f"a worker was ended from outside, most likely because the machine's memory was full: set "
        f"SAE_REPRO_JOBS to fewer than the {jobs} of this run, or choose smaller batches or SAEs"
    )


def _on_ray(works: Mapping[int, Work], display: Display) -> Ended:
    """On the cluster those jobs that say what they read and write, the others on this machine."""
    from sae_repro.dispatch import LostError, results
    from sae_repro.orders import can_travel

    numbers = [number for number, work in works.items() if can_travel(work)]
    here = {number: work for number, work in works.items() if number not in numbers}
    ended: Ended = {}
    if numbers:
        jobs: list[Any] = [works[number] for number in numbers]

        def report(place: int, done: int) -> None:
            display.report(numbers[place], done)

        try:
            for place, result in results(jobs, _timed, workers_asked_for(), report):
                ended[numbers[place]] = result
                display.arrived(numbers[place], result[0])
        except LostError as error:
            raise WorkerLostError(str(error)) from None
    return ended | (_on_this_machine(here, display) if here else {})


def _run(work: Work, folder: Path, number: int, parent: int | None) -> tuple[str | None, float]:
    """(the job's line, its seconds); the line is left in `folder`, too, where it is shared.

    `parent`: the process without which a worker of this machine has to end.
    """
    if parent is not None:
        _prepare_worker(parent)
    counter = _counter(folder)
    if counter is not None:
        (folder / f"{number}.begun").touch()

    def report(done: int) -> None:
        if counter is not None:
            counter[number] = done

    line, seconds = _timed(work, number, report)
    if counter is not None:
        partial = folder / f"{number}.partial"
        partial.write_text(line or "", encoding="utf-8")
        partial.rename(folder / f"{number}.line")
    return line, seconds


_watched: set[int] = set()
"""Parents that a thread of this worker watches."""


def _prepare_worker(parent: int) -> None:
    if parent in _watched:
        return
    _watched.add(parent)
    collect_rarely()
    _keep_what_is_loaded()
    if "PYTHONFAULTHANDLER" not in os.environ:
        faulthandler.disable()  # loky's; the parent has a line on it
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()


def _keep_what_is_loaded() -> None:
    """Let this worker live as long as there are jobs.

    loky ends a worker that holds 300 MB more than after its first job, mapped shards counted, and
    starts another: which loads its libraries, the language model and the bank of concepts again.
    """
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = math.inf


def end_with(parent: int) -> None:
    """Wait, and end this process once its `parent` did: it would go on beside the next run."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _timed(work: Work, number: int, report: Callable[[int], None]) -> tuple[str | None, float]:
    """(the job's line with its seconds, the seconds)."""
    start = time.monotonic()
    line = _named(work, number, report)
    seconds = time.monotonic() - start
    return line and f"{line}, {seconds:.1f} s", seconds


def _named(work: Work, number: int, report: Callable[[int], None]) -> str | None:
    """The job's line; its errors name it."""
    try:
        return work(report)
    except StudyError:
        raise
    except Exception as error:
        name = _name(work, number)
        if _is_full(error):
            raise StudyError(
                f"{name}: memory is full ({' '.join(str(error).split())[:120] or 'MemoryError'}); "
                "set SAE_REPRO_JOBS to fewer, or choose smaller batches or SAEs"
            ) from None
        error.add_note(f"in the job {name}")
        raise


def _name(work: Work, number: int) -> str:
    return str(getattr(work, "name", None) or f"{type(work).__name__} {number}")


def _is_full(error: Exception) -> bool:
    """Whether memory is full; PyTorch has no class of its own for the memory of the CPU."""
    if isinstance(error, RuntimeError):
        return "can't allocate memory" in str(error) or "out of memory" in str(error)
    return isinstance(error, MemoryError)


def _counter(folder: Path) -> "np.memmap[tuple[int], np.dtype[np.int64]] | None":
    try:
        return np.memmap(folder / "done", dtype=np.int64, mode="r+")
    except OSError:  # a worker on another machine sees no folder of this one
        return None
