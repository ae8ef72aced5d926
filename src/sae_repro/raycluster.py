"""Jobs on the nodes of a Ray cluster (`pip install '.[ray]'`): each is tried once more if lost."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sae_repro.errors import StudyError
from sae_repro.numerics.kernels import CHOSEN, PORTABLE

RETRIES = 1
"""How often a job runs again whose node or worker was lost."""


class LostError(Exception):
    """A job was lost with its node or worker, also when it ran again."""


def results(calls: Sequence[tuple[Any, ...]], most: int | None) -> Iterator[tuple[int, Any]]:
    """(number of the call, its result) as they end; a call is a function and its arguments.

    At most `most` run at a time, None: one per CPU of the cluster, which is the one that
    RAY_ADDRESS or `ray start` on this machine names, or this machine. Errors of calls are raised
    as they are; StudyError where a node cannot carry calls out.
    """
    ray = _connected()
    remote = ray.remote(num_cpus=1, max_retries=RETRIES, runtime_env={"env_vars": _kernels()})(
        _carry_out
    )
    most = most or max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = iter(enumerate(calls))
    running: dict[Any, int] = {}
    try:
        while True:
            while len(running) < most and (following := next(waiting, None)) is not None:
                number, call = following
                running[remote.remote(*call)] = number
            if not running:
                return
            [ended], _ = ray.wait(list(running), num_returns=1)
            yield running.pop(ended), _result(ray, ended)
    finally:
        for left in running:
            ray.cancel(left, force=True)


def _kernels() -> dict[str, str]:
    """The kernels of this process, as environment: a node starts its workers with its own."""
    return {name: os.environ[name] for name in (CHOSEN, *PORTABLE) if name in os.environ}


def _connected() -> Any:
    try:
        import ray  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise StudyError(
            f"SAE_REPRO_EXECUTOR = ray: ray can't be imported ({error}); pip install '.[ray]' in "
            "the repository's root"
        ) from None
    # read when it connects; without it, a job that fills the memory is begun again for ever
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # of many kinds
            raise StudyError(
                f"SAE_REPRO_EXECUTOR = ray: no cluster ({' '.join(str(error).split())[:200]}); "
                "`ray start --head` starts one here, RAY_ADDRESS names another"
            ) from None
    return ray


def _carry_out(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def _result(ray: Any, ended: Any) -> Any:
    errors = ray.exceptions
    try:
        return ray.get(ended)
    except errors.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, ModuleNotFoundError) or "failed to import" in str(error):
            raise StudyError(
                f"SAE_REPRO_EXECUTOR = ray: a node cannot import this program "
                f"({' '.join(str(cause or error).split())[-200:]}); install the same environment "
                "on each node before `ray start`"
            ) from None
        raise cause if isinstance(cause, Exception) else error from None
    except errors.RayError as error:
        full = isinstance(error, errors.OutOfMemoryError)
        raise LostError(
            f"a worker or node of the Ray cluster was lost {1 + RETRIES} times with one job "
            f"({type(error).__name__}), "
            + ("because its memory was full" if full else "most likely because memory was full")
            + ": start nodes with fewer CPUs, or set SAE_REPRO_JOBS to fewer"
        ) from None
