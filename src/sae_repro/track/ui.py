"""MLflow's UI on this machine only, open on the study's charts."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sae_repro.errors import StudyError
from sae_repro.track.apart import apart
from sae_repro.track.origin import Origin
from sae_repro.track.server import (
    connect,
    find_experiment,
    is_server,
    redacted,
    server_errors,
    tracking_uri,
)
from sae_repro.track.view import publish

HOST = "127.0.0.1"
START_TIMEOUT = 120.0  # seconds: a cold start imports about a thousand modules


def show(study: Path, root: Path, experiment: str, port: int, *, browser: bool) -> None:
    """Print the address of the study's charts and, if asked, open it in a browser.

    Serves them on loopback until it is ended (Ctrl-C, SIGTERM); where MLFLOW_TRACKING_URI is a
    server, prints that server's address and returns. StudyError where no run has been sent yet or
    the server does not start.
    """
    uri = tracking_uri(root)
    with server_errors(root):
        place = apart(_publish, study, root, experiment)
    if is_server(uri):
        # a browser asks for the password itself
        announce(f"{redacted(uri).replace('***@', '').rstrip('/')}/{place}", browser)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _serving(uri, root, _free(port)) as address:
            announce(f"{address}/{place}", browser)
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        return


def _publish(study: Path, root: Path, experiment: str) -> str:
    with server_errors(root):
        client = connect(root)
        return publish(client, find_experiment(client, experiment), Origin(study).study)


def announce(address: str, browser: bool) -> None:
    """Print an address and, if asked, open it in a browser."""
    print(address, flush=True)
    if browser:
        _open_browser(address)


def _free(port: int) -> int:
    """`port`, or a free one if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def _serving(uri: str, root: Path, port: int) -> Iterator[str]:
    """The address of an MLflow server on loopback for the database `uri`."""
    # not as an argument: every user of the machine can read those
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri,
                   "MLFLOW_DISABLE_TELEMETRY": "true",
                   "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # fmt: skip
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port),
               "--workers", "1"]  # fmt: skip
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, cwd=root, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            address = f"http://{HOST}:{port}"
            _wait(process, address, log)
            yield address
        finally:
            _stop(process)


def _wait(process: "subprocess.Popen[bytes]", address: str, log: IO[str]) -> None:
    end = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    log.seek(0)
    lines = [line for line in log.read().splitlines() if line.strip()] or ["no output"]
    raise StudyError(f"the MLflow UI did not start: {redacted(lines[-1])}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the server and the workers that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _open_browser(address: str) -> None:
    """Show `address` where there is a screen to show it on."""
    import webbrowser

    if sys.platform != "linux" or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        webbrowser.open(address)
