"""Endpoints that misbehave: each ends the run in one line, within attempts times `timeout_s`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sae_repro.errors import StudyError
from sae_repro.judge.backends import http
from sae_repro.judge.backends.http import HttpBackend
from sae_repro.judge.backends.rate_limit import Clock

from ..peers import MODES, SLOW, Peer
from .conftest import Endpoint, FakeClock, Response, echo, questions

Make = Callable[..., HttpBackend]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_ends_in_one_line(
    mode: str,
    peer: Callable[[str], Peer],
    backend: Make,
    record: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.01)
    asked = peer(mode)
    slow = backend(wait=Clock(), base_url=asked.url, timeout_s=0.5, attempts=2)
    if mode == "busy for ten minutes":
        monkeypatch.setattr(http, "LONGEST_ASKED_WAIT_S", 599.0)
    with pytest.raises(StudyError) as caught:
        slow.answer(questions(1))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"judge.base_url = {asked.url}: ")
    assert "0 of 1 answers are kept" in message
    if mode in SLOW:
        assert "no answer in 2 attempts, last error: no complete answer within 0.5 s" in message
        assert "raise judge.timeout_s = 0.5" in message
    # refused or asked to wait too long at once; everything else is tried again
    at_once = mode in ("busy for ten minutes", "redirects in a circle")
    assert asked.requests == (1 if at_once else 2)
    assert not record.is_file() or not record.read_bytes().strip()


@pytest.mark.timeout(60)
def test_a_hanging_look_up_of_a_name_is_within_the_limit(
    backend: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Event

    released = Event()
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: released.wait())
    try:
        with pytest.raises(StudyError, match=r"no complete answer within 0\.2 s"):
            backend(wait=Clock(), base_url="http://judge.invalid/v1", timeout_s=0.2).answer(
                questions(1)
            )
    finally:
        released.set()


@pytest.mark.timeout(60)
def test_a_proxy_that_never_answers_is_within_the_limit(
    peer: Callable[[str], Peer], backend: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("HTTPS_PROXY", peer("drips headers").url)
    with pytest.raises(StudyError, match=r"no complete answer within 0\.2 s"):
        backend(wait=Clock(), base_url="https://judge.invalid/v1", timeout_s=0.2).answer(
            questions(1)
        )


def test_waits_that_the_endpoint_asks_for_are_bounded_in_sum(
    endpoint: Endpoint, backend: Make, clock: FakeClock
) -> None:
    headers = {"Retry-After": "250"}
    endpoint.script = lambda n, prompt: Response(429, headers=headers) if n < 2 else echo(prompt)
    backend(attempts=6).answer(questions(1))
    endpoint.script = lambda n, prompt: Response(429, headers=headers)
    with pytest.raises(StudyError, match=r"asks to wait 250 s, 750 s in all .*retry after that"):
        backend(attempts=6).answer(questions(2))
    assert len(endpoint.prompts) == 3 + 3


def test_a_long_wait_is_announced(
    endpoint: Endpoint, backend: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    waits = ["300", "7"]
    endpoint.script = lambda n, prompt: (
        Response(429, headers={"Retry-After": waits[n]}) if n < 2 else echo(prompt)
    )
    backend().answer(questions(1))
    said = [line for line in capfd.readouterr().err.splitlines() if "no request for" in line]
    assert said == ["judge: no request for 300 s, as the endpoint asks (429 Too Many Requests)"]


def test_after_an_overdue_request_the_next_one_has_a_connection(
    endpoint: Endpoint, backend: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.01)
    body = json.dumps({"choices": [{"message": {"content": "late"}}]}).encode()
    asked: list[str] = []

    def script(n: int, prompt: str) -> Response:
        asked.append(prompt)
        return Response(body=body, act="drip") if asked.count(prompt) == 1 else echo(prompt)

    endpoint.script = script
    answers = backend(wait=Clock(), timeout_s=0.3, in_flight=2).answer(questions(4))
    assert [a.text for a in answers] == [f"answer to question {i}" for i in range(4)]
