"""When the next request may start."""

import time
from threading import Event, Lock

# what lets a clock of whole ticks, or a fake one, get past a rounding error
_LEAST_WAIT_S = 1e-3


class Clock:
    """Time as the http judge sees it; tests put another in its place."""

    def now(self) -> float:
        """Seconds since some moment, never going back."""
        return time.monotonic()

    def date(self) -> float:
        """Seconds since 1970, for the dates that servers send."""
        return time.time()

    def sleep(self, seconds: float, stop: Event) -> None:
        """Wait, but no longer than until `stop` is set."""
        stop.wait(seconds)


class StoppedError(Exception):
    """Another request has failed for good: this one is not made."""


class Pace:
    """Starts evenly spaced, for all threads together: any 60 s hold at most `per_minute`."""

    def __init__(self, per_minute: int, clock: Clock, stop: Event) -> None:
        self._interval = 60.0 / per_minute
        self._clock = clock
        self._stop = stop
        self._lock = Lock()
        self._next = clock.now()

    def turn(self) -> None:
        """Return when the caller may start a request; StoppedError once `stop` is set."""
        while not self._stop.is_set():
            with self._lock:
                now = self._clock.now()
                wait = self._next - now
                if wait <= 0:
                    self._next = now + self._interval
                    return
            self._clock.sleep(max(wait, _LEAST_WAIT_S), self._stop)
        raise StoppedError

    def hold(self, seconds: float) -> None:
        """Start nothing for so long: the endpoint asked for it, or has trouble."""
        with self._lock:
            self._next = max(self._next, self._clock.now() + seconds)
