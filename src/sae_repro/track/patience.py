"""The time that a tracking server has, and the client whose calls are told to a watcher of it.

A socket's time-outs limit each wait of a request and not their sum, and MLflow's client sleeps as
long as a Retry-After says: only a clock beside it ends a sync that does not get on.
"""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from sae_repro.deadline import OverdueError

TIMEOUT_S, RETRIES = 3, 1
"""MLflow's limits of one request, where the environment sets none."""
SILENCE_S = 60.0
"""Most that may pass without an answer, where the environment allows no request more."""
START_S = 120.0
"""Most that importing MLflow and making a database take, before the first call."""
BYTES_PER_S = 20_000
"""The slowest upload of a file that is waited for."""


def per_call() -> float:
    """The seconds that MLflow's own limits give a request: its time-out, with each retry."""
    return _number("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT_S) * (
        1 + _number("MLFLOW_HTTP_REQUEST_MAX_RETRIES", RETRIES)
    )


def _number(variable: str, default: float) -> float:
    try:
        return max(0.0, float(os.environ[variable]))
    except (KeyError, ValueError):  # MLflow itself names a value that is no number
        return default


class Patience:
    """The end of the time that a server has, which each of its answers moves on.

    An answer is worth `per_call` seconds, and at most `silence` is ahead: a server may be silent
    for `silence` once, and has to answer within `per_call` on average, however much it is sent.
    """

    def __init__(self, silence: float | None = None) -> None:
        self._each = per_call()
        self._silence = max(SILENCE_S if silence is None else silence, self._each)
        self._end = math.inf
        self._lock = Lock()

    def start(self, seconds: float) -> None:
        """Give the server so long for what comes before its first answer."""
        with self._lock:
            self._end = time.monotonic() + seconds

    def pause(self) -> None:
        """Nothing is asked of the server: wait as long as it takes until the next start."""
        with self._lock:
            self._end = math.inf

    def answered(self, upload: float) -> None:
        """The server got on; the next call may take `upload` seconds more."""
        with self._lock:
            now = time.monotonic()
            self._end = min(self._end + self._each, now + self._silence) + upload

    def left(self) -> float:
        """The seconds that are left; 0 once they are over."""
        with self._lock:
            return max(0.0, self._end - time.monotonic())

    def overdue(self) -> OverdueError:
        """What a server that has no time left is told of by."""
        return OverdueError(
            f"it does not get on: over {self._silence:g} s without an answer, or over "
            f"{self._each:g} s for each of them (MLFLOW_HTTP_REQUEST_TIMEOUT allows more)"
        )


class Reporting:
    """An MlflowClient that tells `report` of every call, with the seconds for the upload to come.

    A file is announced before it is sent: nothing is heard of it until all of it is there. The
    first report is made at once.
    """

    def __init__(self, client: Any, report: Callable[[float], object]) -> None:
        self._client, self._report = client, report
        report(0.0)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            if name == "log_artifact":
                self._report(Path(args[1]).stat().st_size / BYTES_PER_S)
            result = method(*args, **options)
            self._report(0.0)
            return result

        return call
