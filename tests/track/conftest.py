"""A small study on disk, a real MLflow server, and a proxy that simulates a bad network."""

import http.client
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from sae_repro.params import Cell

STEPS = 400
CELL = {"activation": "topk", "expansion": 4, "k": 2}
"""The choices of every cell of the small study."""


def cells_named(names: Iterable[str]) -> dict[str, Cell]:
    """The small study's cells, as params.yaml would give them."""
    return {name: Cell.model_validate(CELL) for name in names}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow with its tables, which take longer to make than most tests."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def make_study(empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Writes a study with two trained cells, one that failed, and a report."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def make(folder: Path) -> Path:
        for number, name in enumerate(("a", "b", "bad")):
            write_cell(folder, name, key=f"{number}" * 8, failed=name == "bad")
        for place in ("tables", "figures"):
            (folder / "reports" / place).mkdir(parents=True)
            (folder / "reports" / place / "x.md").write_text(place)
        shutil.copy(empty_database, folder / "mlflow.db")
        return folder

    return make


def write_cell(study: Path, name: str, *, key: str, failed: bool = False, fvu: float = 0.5) -> None:
    """The files that `train` and `evaluate` write for a cell."""
    trained, evaluated = (study / "artifacts" / part / name for part in ("train", "evaluate"))
    for folder in (trained, evaluated):
        folder.mkdir(parents=True, exist_ok=True)
    summary = {
        "cell": name, "key": key, "status": "failed" if failed else "ok", "hook": "h",
        "d_in": 4, "d_sae": 8, "steps": STEPS, "seed": 0, "train": {"batch_size": 8},
        "choices": {"expansion": 2.0, "activation": "relu", "penalty": "l1", "k": None,
                    "lambda": 0.1, "resample_every": 25_000},
    }  # fmt: skip
    (trained / "train.json").write_text(json.dumps(summary))
    rows = [{"step": s, "tokens": 8 * s, "loss": 1 / (s + 1), "fvu": 0.5} for s in range(STEPS)]
    (trained / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (trained / "cfg.json").write_text("{}")
    (trained / "sae_weights.safetensors").write_bytes(key.encode())
    measured = {
        "status": summary["status"],
        "metrics": {}
        if failed
        else {
            "fvu": fvu,
            "l0": 3.0,
            "dead_fraction_never": 0.125,
            "monosemantic_fraction": 0.25,
            "ce_sae": None,
        },
        "counts": {} if failed else {"tokens": 4000},
        "intervals": {} if failed else {"fvu": [fvu - 0.1, fvu + 0.1]},
    }
    (evaluated / "metrics.json").write_text(json.dumps(measured))
    (evaluated / "contexts.parquet").write_bytes(b"x")


class Server:
    """A real MLflow server on a loopback port, on a database that outlives it."""

    def __init__(self, folder: Path, empty_database: Path) -> None:
        self.database, self.served = folder / "server.db", folder / "served"
        shutil.copy(empty_database, self.database)
        self.port = free_port()
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
             "--port", str(self.port), "--workers", "1",
             "--backend-store-uri", f"sqlite:///{self.database}",
             "--artifacts-destination", str(self.served)],
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true",
                 "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1).close()
                return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError("the MLflow server did not start")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.killpg(self.process.pid, number)
        self.process.wait(timeout=30)

    def limit_files(self, size: int) -> None:
        """Let no file of the server grow beyond `size` bytes: to it, the disk is full."""
        for process in (p := psutil.Process(self.process.pid), *p.children(recursive=True)):
            _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Server]:
    """One server for all tests: each has an experiment of its own, and leaves the server up."""
    running = Server(tmp_path_factory.mktemp("server"), empty_database)
    yield running
    running.kill(signal.SIGTERM)


class Proxy(ThreadingHTTPServer):
    """Passes requests on, but for what `fault` makes of (request number, method and path).

    `fault` returns "pass", "deaf" (never passed on, never answered), "mute" (passed on, never
    answered), "drip" (passed on, the answer sent for ever), "busy" (not passed on, told to come
    back in ten minutes) or "kill" (passed on, the server killed over it).
    """

    daemon_threads = True

    def __init__(self, behind: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.target = behind, behind.port
        self.fault: Callable[[int, str], str] = lambda number, what: "pass"
        self.seen: Callable[[str], object] = lambda authorization: None
        self.requests = 0
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is what this is for."""


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            self.server.requests += 1
            number = self.server.requests
        self.server.seen(self.headers.get("Authorization", ""))
        fault = self.server.fault(number, f"{self.command} {self.path}")
        self.close_connection = True
        if fault == "deaf":
            self.server.released.wait(60)
            return
        if fault == "busy":
            self.send_response(429)
            self.send_header("Retry-After", "600")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=60)
        upstream.request(self.command, self.path, body, dict(self.headers.items()))
        if fault == "kill":
            time.sleep(0.02)
            self.server.behind.kill()
            return
        answer = upstream.getresponse()
        content = answer.read()
        if fault == "mute":
            self.server.released.wait(60)
            return
        if fault == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self.server.released.wait(0.05):
                self.wfile.write(b" ")
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A proxy before the server, which passes everything until a test says otherwise."""
    running = Proxy(server)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.released.set()
    running.shutdown()
    running.server_close()


def dying_log_batch(calls: int) -> Callable[..., None]:
    """`MlflowClient.log_batch` that works for a number of calls, and then no more."""
    from mlflow import MlflowClient

    log_batch, made = MlflowClient.log_batch, 0

    def dies(self: Any, *args: Any, **options: Any) -> None:
        nonlocal made
        made += 1
        if made > calls:
            raise ConnectionError("the server went away")
        log_batch(self, *args, **options)

    return dies
