"""The rate limit: spacing of requests, requests in flight, waits."""

import email.utils
import time
from collections.abc import Callable
from threading import Event, Semaphore, Thread

import pytest

from sae_repro.errors import StudyError
from sae_repro.judge.backends.http import HttpBackend
from sae_repro.judge.backends.rate_limit import Clock, RateLimit, StoppedError

from .conftest import Endpoint, FakeClock, Response, echo, questions

Make = Callable[..., HttpBackend]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(
    endpoint: Endpoint, backend: Make, clock: FakeClock, form: str
) -> None:
    later = email.utils.formatdate(clock.date() + 37, usegmt=True)
    value = "37" if form == "seconds" else later
    times = []

    def script(n: int, prompt: str) -> Response:
        times.append(clock.now())
        return Response(429, headers={"Retry-After": value}) if n == 0 else echo(prompt)

    endpoint.script = script
    backend().answer(questions(3))
    assert times[1] - times[0] >= 37
    assert times[1] - times[0] < 38.1


@pytest.mark.parametrize("value", ["soon", "-5", "", "9e9", "Mon, 99 Foo"])
def test_an_invalid_retry_after_is_ignored(
    endpoint: Endpoint, backend: Make, clock: FakeClock, value: str
) -> None:
    headers = {"Retry-After": value}
    endpoint.script = lambda n, p: Response(429, headers=headers) if n == 0 else echo(p)
    backend().answer(questions(1))
    assert 0.5 <= sum(clock.slept) <= 1.1


def test_a_retry_after_of_an_hour_ends_the_run(
    endpoint: Endpoint, backend: Make, clock: FakeClock
) -> None:
    endpoint.script = lambda n, prompt: Response(429, headers={"Retry-After": "3600"})
    with pytest.raises(StudyError, match=r"asks to wait 3600 s .*429"):
        backend().answer(questions(1))
    assert len(endpoint.prompts) == 1


def test_no_more_requests_are_in_flight_than_allowed(endpoint: Endpoint, backend: Make) -> None:
    full = Event()

    def script(_: int, prompt: str) -> Response:
        # the first ones wait for each other, so that the bound is reached and not just kept
        if endpoint.most_in_flight >= 3:
            full.set()
        assert full.wait(20)
        return echo(prompt)

    endpoint.script = script
    backend(in_flight=3).answer(questions(30))
    assert endpoint.most_in_flight == 3


def test_no_minute_holds_more_requests_than_allowed(
    endpoint: Endpoint, backend: Make, clock: FakeClock
) -> None:
    """Retries count; a fake clock, so the test takes no minutes."""
    times = []

    def script(n: int, prompt: str) -> Response:
        times.append(clock.now())
        return Response(500) if n % 5 == 1 else echo(prompt)

    endpoint.script = script
    backend(requests_per_minute=7).answer(questions(30))
    assert len(times) > 30
    for start in times:
        assert sum(start <= t < start + 60 - 1e-6 for t in times) <= 7


def test_threads_share_one_rate_limit(clock: FakeClock) -> None:
    limit = RateLimit(60, clock, Event())
    threads = [Thread(target=lambda: [limit.turn() for _ in range(5)]) for _ in range(4)]
    begun = clock.now()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.now() - begun >= 19 - 1e-6


def test_a_stopped_rate_limit_starts_no_request() -> None:
    stop = Event()
    limit = RateLimit(1, Clock(), stop)
    limit.turn()
    limit.hold(3600)
    stop.set()
    with pytest.raises(StoppedError):
        limit.turn()


def test_a_failure_stops_waiting_requests(
    endpoint: Endpoint, backend: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a real clock: nine workers are original to wait for ten minutes, one is refused."""
    arrived, waiting = Event(), Semaphore(0)

    def script(n: int, prompt: str) -> Response:
        if prompt == "question 9":
            arrived.set()
            assert all(waiting.acquire(timeout=20) for _ in range(9))
            return Response(401)
        return Response(429, headers={"Retry-After": "500"})

    def hold(limit: RateLimit, seconds: float) -> None:
        assert arrived.wait(20), "or the question that is refused would not be asked"
        original(limit, seconds)
        waiting.release()

    original = RateLimit.hold
    monkeypatch.setattr(RateLimit, "hold", hold)
    endpoint.script = script
    begun = time.monotonic()
    with pytest.raises(StudyError, match="401"):
        backend(wait=Clock(), in_flight=10).answer(questions(10))
    assert time.monotonic() - begun < 60
