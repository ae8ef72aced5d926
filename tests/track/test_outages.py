"""Outages of a real MLflow server: the pipeline goes on, and the next sync completes the runs.

Afterwards the server holds what an undisturbed sync would have left, each row once.
"""

import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sae_repro.params import Track
from sae_repro.stage import StageContext
from sae_repro.track import patience, run, send
from sae_repro.track.mlflow_sync import Sent, sync
from sae_repro.track.projection import projection

from .conftest import CELL, STEPS, Proxy, Server, cells_named

pytestmark = pytest.mark.slow

CELLS = ("a", "b", "bad")
Outage = Callable[[Server, Proxy], Any]


@contextmanager
def down(server: Server, proxy: Proxy) -> Iterator[None]:
    target, proxy.target = proxy.target, 9
    yield
    proxy.target = target


@contextmanager
def deaf(server: Server, proxy: Proxy) -> Iterator[None]:
    """Takes the connection and is never heard of again."""
    proxy.fault = lambda number, what: "deaf"
    yield
    proxy.fault = lambda number, what: "pass"


@contextmanager
def mute_on_creation(server: Server, proxy: Proxy) -> Iterator[None]:
    """Makes the run, but the answer never comes: the client asks again, and gets a second one."""
    proxy.fault = lambda number, what: "mute" if what.endswith("runs/create") else "pass"
    yield
    proxy.fault = lambda number, what: "pass"


@contextmanager
def deaf_midway(server: Server, proxy: Proxy) -> Iterator[None]:
    proxy.fault = lambda number, what: "deaf" if number > 12 else "pass"
    yield
    proxy.fault = lambda number, what: "pass"


@contextmanager
def drips_midway(server: Server, proxy: Proxy) -> Iterator[None]:
    """Does what it is asked, and never ends its answer: only the deadline ends the sync."""
    proxy.fault = lambda number, what: "drip" if number > 12 else "pass"
    yield
    proxy.fault = lambda number, what: "pass"


@contextmanager
def drips_on_creation(server: Server, proxy: Proxy) -> Iterator[None]:
    """Makes the run, of which the client never hears."""
    proxy.fault = lambda number, what: "drip" if what.endswith("runs/create") else "pass"
    yield
    proxy.fault = lambda number, what: "pass"


@contextmanager
def busy_midway(server: Server, proxy: Proxy) -> Iterator[None]:
    """Asks to wait for ten minutes, which MLflow's client would do."""
    proxy.fault = lambda number, what: "busy" if number > 12 else "pass"
    yield
    proxy.fault = lambda number, what: "pass"


@contextmanager
def killed_mid_batch(server: Server, proxy: Proxy) -> Iterator[None]:
    """SIGKILL while the server works on the first batch of metrics."""
    batches = 0

    def fault(number: int, what: str) -> str:
        nonlocal batches
        batches += what.endswith("runs/log-batch")
        return "kill" if batches == 3 and server.process.poll() is None else "pass"

    proxy.fault = fault
    yield
    proxy.fault = lambda number, what: "pass"
    assert server.process.poll() == -signal.SIGKILL, "it was to be killed"
    server.start()


@contextmanager
def locked(server: Server, proxy: Proxy) -> Iterator[None]:
    """Somebody else holds the database."""
    other = sqlite3.connect(server.database, isolation_level=None, timeout=30)
    other.execute("begin exclusive")
    try:
        yield
    finally:
        other.close()


@contextmanager
def full(server: Server, proxy: Proxy) -> Iterator[None]:
    """No room for another page of the database."""
    server.limit_files(server.database.stat().st_size)
    yield
    server.limit_files(-1)


OUTAGES = (down, deaf, mute_on_creation, deaf_midway, drips_midway, drips_on_creation, busy_midway,
           killed_mid_batch, locked, full)  # fmt: skip


def held(server: Server, experiment: str) -> dict[str, Any]:
    """Rows of an experiment's active runs in the database, by name, duplicates included."""
    where = (
        "join runs r on r.run_uuid = x.run_uuid join experiments e "
        "on e.experiment_id = r.experiment_id "
        f"where e.name = '{experiment}' and r.lifecycle_stage = 'active'"
    )
    with sqlite3.connect(server.database) as connection:

        def rows(columns: str, table: str, more: str = "") -> Counter[Any]:
            return Counter(
                connection.execute(f"select r.name, {columns} from {table} x {where}{more}")
            )

        return {
            "runs": rows("x.status", "runs"),
            "params": rows("x.key, x.value", "params"),
            "metrics": rows("x.key, x.value, x.step, x.timestamp - r.start_time", "metrics"),
            "tags": rows("x.key", "tags", " and x.key not like 'mlflow.%'"),
            "superseded": rows("x.value", "tags", " and x.key = 'sae_repro.superseded'"),
            "ids": [run_id for (_, run_id), _ in rows("x.run_uuid", "runs").items()],
        }


def files(server: Server, ids: list[str]) -> Counter[str]:
    return Counter(p.name for i in ids for p in server.served.rglob(f"*/{i}/**/*") if p.is_file())


@pytest.fixture
def study(make_study: Callable[[Path], Path], tmp_path: Path) -> Path:
    return make_study(tmp_path / "study")


@pytest.fixture
def undisturbed(
    study: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], Counter[str]]:
    """The database after a sync without an outage."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    sync(projection(cells_named(CELLS), study, weights=True), study, study, "undisturbed")
    found = held(server, "undisturbed")
    return found, files(server, found.pop("ids"))


def test_a_server_gets_every_row_once(
    undisturbed: tuple[dict[str, Any], Counter[str]],
) -> None:
    found, artifacts = undisturbed
    assert {max(rows.values()) for rows in found.values()} == {1}
    assert set(found["runs"]) == {("a", "FINISHED"), ("b", "FINISHED"), ("bad", "FAILED"),
                                  ("report", "FINISHED")}  # fmt: skip
    held_out = ("fvu", "l0", "dead", "monosemantic", "low", "high", "tokens", "log10_l0")
    size = ("parameters", "flops_per_step")
    curves, measured = 3 * 2 * STEPS, 2 * len(held_out) + 3 * len(size)
    assert len(found["metrics"]) == curves + measured
    assert artifacts["sae_weights.safetensors"] == 3


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.__name__)
def test_after_an_outage_the_next_sync_completes_the_picture(
    outage: Outage,
    study: Path,
    server: Server,
    proxy: Proxy,
    undisturbed: tuple[dict[str, Any], Counter[str]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    name = f"after-{outage.__name__}"
    runs = projection(cells_named(CELLS), study, weights=True)
    monkeypatch.chdir(study)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    sync([], study, study, name)  # the experiment; an outage then is felt by the runs
    capfd.readouterr()
    # what a user has who has set nothing
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setattr(patience, "SILENCE_S", 10.0)
    with outage(server, proxy):
        run(
            StageContext(
                "track",
                {"track": {"experiment": name}, "recipes": {}, "cells": dict.fromkeys(CELLS, CELL)},
            )
        )
    out, err = capfd.readouterr()
    assert [line.startswith("track: warning: MLflow at ") for line in err.splitlines()] == [True]
    assert out == ""
    assert len((study / "artifacts/track/runs.jsonl").read_text().splitlines()) == 4
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    before = held(server, name)
    sync(runs, study, study, name)
    found = held(server, name)
    assert before["metrics"] <= found["metrics"]
    uploaded = files(server, found.pop("ids"))
    expected, artifacts = undisturbed
    assert found == expected
    assert uploaded == artifacts
    assert sync(runs, study, study, name) == Sent(runs_unchanged=4)


def test_a_slow_server_gets_every_run_once(
    study: Path,
    server: Server,
    proxy: Proxy,
    undisturbed: tuple[dict[str, Any], Counter[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes many times as long as it may be silent, and is not cut off."""

    def slow(number: int, what: str) -> str:
        time.sleep(0.3)
        return "pass"

    proxy.fault = slow
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(patience, "SILENCE_S", 2.0)
    begun = time.monotonic()
    send(study, study, cells_named(CELLS), Track(experiment="slow"))
    assert time.monotonic() - begun > 10
    found = held(server, "slow")
    found.pop("ids")
    assert found == undisturbed[0]
