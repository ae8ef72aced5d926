"""A password in MLFLOW_TRACKING_URI appears on no screen, in no file and in no run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Proxy, Server, free_port

SECRET = "hunter2"
CODE = """
from pathlib import Path
from sae_repro.stage import StageContext
from sae_repro.track import run, send
from sae_repro.params import Track
cells = dict.fromkeys(("a", "b", "bad"), {"activation": "topk", "expansion": 4, "k": 2})
run(StageContext("track", {"track": {"experiment": "secrets"}, "recipes": {}, "cells": cells}))
"""


def holding(folder: Path, secret: bytes) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and secret in p.read_bytes()]


@pytest.fixture
def study(make_study: Callable[[Path], Path], tmp_path: Path) -> Path:
    return make_study(tmp_path / "study")


def stage(study: Path, uri: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=study, capture_output=True, text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_password_authenticates_and_is_stored_nowhere(
    study: Path, server: Server, proxy: Proxy
) -> None:
    requests = []
    proxy.seen = requests.append
    uri = proxy.uri.replace("://", f"://me:{SECRET}@")
    assert stage(study, uri) == ""
    assert requests, "nothing reached the server"
    assert any(header.startswith("Basic ") for header in requests)
    assert holding(study, SECRET.encode()) == []
    # the control: what was sent is there, and the password is not
    assert holding(server.database.parent, b"secrets") != []
    assert holding(server.database.parent, SECRET.encode()) == []


@pytest.mark.slow
def test_an_unreachable_server_is_named_without_the_password(study: Path) -> None:
    message = stage(study, f"http://me:{SECRET}@127.0.0.1:{free_port()}")
    assert "track: warning: MLflow at http://***@127.0.0.1" in message
    assert SECRET not in message
    assert holding(study, SECRET.encode()) == []
