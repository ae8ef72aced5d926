"""The rate limit of requests, and the clock behind it."""

import time
from threading import Event, Lock

# gets a clock of whole ticks, or a fake one, past a rounding error
_LEAST_WAIT_S = 1e-3


class Clock:
    """The clock of the http judge; tests replace it."""

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
    """Another request has failed permanently: this one is not made."""


class RateLimit:
    """Evenly spaced starts for all threads together: at most `per_minute` in any 60 s."""

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
        """Start no request for so long, as the endpoint asked, or because it is failing."""
        with self._lock:
            self._next = max(self._next, self._clock.now() + seconds)
