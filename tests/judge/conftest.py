"""An endpoint that misbehaves on demand, a clock that doesn't wait, and settings for both."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock
from typing import Any

import pytest

from sae_repro.judge import Prompt, Question, Sampling
from sae_repro.judge.backends.http import HttpBackend
from sae_repro.judge.backends.rate_limit import Clock
from sae_repro.params import Judge

KEY = "sk-test-0123456789abcdef"


@dataclass
class Response:
    """The endpoint's behaviour on one request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    reason: str | None = None
    act: str = ""
    """reset, cut, drip, flood, slow: instead of a whole response in time."""


def completion(text: str) -> Response:
    return Response(body=json.dumps({"choices": [{"message": {"content": text}}]}).encode())


def echo(prompt: str) -> Response:
    return completion(f"answer to {prompt}")


class Endpoint:
    """An OpenAI-compatible server; `script` gets (number of the request, prompt)."""

    def __init__(self) -> None:
        self.script: Callable[[int, str], Response] = lambda _, prompt: echo(prompt)
        self.prompts: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.paths: list[str] = []
        self.most_in_flight = 0
        self.released = Event()
        """Lets go of slow requests."""
        self._in_flight = 0
        self._lock = Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def respond(self, path: str, body: dict[str, Any], authorization: str | None) -> Response:
        prompt = body["messages"][0]["content"]
        with self._lock:
            number = len(self.prompts)
            self.prompts.append(prompt)
            self.bodies.append(body)
            self.authorizations.append(authorization)
            self.paths.append(path)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            return self.script(number, prompt)
        finally:
            # before a byte of the response leaves: the client can't be further than we count
            with self._lock:
                self._in_flight -= 1


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            response = endpoint.respond(self.path, body, self.headers["Authorization"])
            try:
                self._send(response)
            except OSError:
                self.close_connection = True  # the client has gone

        def _send(self, response: Response) -> None:
            if response.act == "reset":
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.connection.close()
                self.close_connection = True
                return
            if response.act == "slow":
                endpoint.released.wait(30)
            extra = {"cut": 10, "drip": 1000, "flood": 1 << 40}.get(response.act, 0)
            self.send_response(response.status, response.reason)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.body) + extra))
            self.end_headers()
            self.wfile.write(response.body)
            while response.act == "drip" and not endpoint.released.wait(0.05):
                self.wfile.write(b" ")
            while response.act == "flood" and not endpoint.released.is_set():
                self.wfile.write(b" " * 65_536)
            if extra:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


class FakeClock(Clock):
    """Sleeping takes no time, but the clock says it did."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []
        self._lock = Lock()

    def now(self) -> float:
        return self.time

    def date(self) -> float:
        return 1_700_000_000.0 + self.time

    def sleep(self, seconds: float, stop: Event) -> None:
        with self._lock:
            self.slept.append(seconds)
            self.time += seconds
        time.sleep(0)  # other threads' turn


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUDGE_KEY", KEY)
    server = Endpoint()
    yield server
    server.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "judge" / "answers.jsonl"


@pytest.fixture
def backend(endpoint: Endpoint, record: Path, clock: FakeClock) -> Callable[..., HttpBackend]:
    """Makes a backend that asks the endpoint."""

    def make(*, wait: Clock = clock, to: Path = record, **changes: Any) -> HttpBackend:
        return HttpBackend(http_settings(endpoint.url, **changes), to, clock=wait)

    return make


def http_settings(url: str, **changes: Any) -> Judge:
    given: dict[str, Any] = {
        "kind": "http",
        "model": "some-model",
        "base_url": url,
        "key_env": "JUDGE_KEY",
        "requests_per_minute": 600_000,
        "in_flight": 1,
        "timeout_s": 20,
        "attempts": 3,
    }
    return Judge(**{**given, **changes})


def questions(n: int, start: int = 0) -> list[Question]:
    return [Question(Prompt("label", 1, f"question {i}"), Sampling()) for i in range(start, n)]
