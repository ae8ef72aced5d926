"""Curves while training, in the pipeline: the same bits with them, without them, after a kill."""

import os
import signal
import sqlite3
import time
from typing import get_args

import pytest

from sae_repro.params.evaluate import Chosen

from .conftest import Checkout

pytestmark = pytest.mark.slow


def weights(checkout: Checkout) -> dict[str, bytes]:
    """The SAEs' files by cell."""
    found = checkout.folder.glob("artifacts/train/*/sae_weights.safetensors")
    return {path.parent.name: path.read_bytes() for path in found}


def runs(checkout: Checkout) -> list[tuple[str, ...]]:
    """(cell, status, tag of unfinished runs) of the runs in MLflow that are not deleted."""
    path = checkout.folder / "mlflow.db"
    if not path.is_file():
        return []
    with sqlite3.connect(path) as connection:
        return sorted(
            connection.execute(
                "select r.name, r.status, coalesce(l.value, '') from runs r left join tags l "
                "on l.run_uuid = r.run_uuid and l.key = 'sae_repro.live' "
                "where r.lifecycle_stage = 'active'"
            )
        )


def test_bits_and_runs_are_the_same_with_curves_without_and_after_a_kill(
    fresh: Checkout, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("live")
    with_curves = fresh.copy(folder / "with")
    with_curves.change("epochs: 3", "epochs: 20")
    with_curves.change(f"metrics: [{', '.join(get_args(Chosen))}]", "metrics: []")
    with_curves.change("  references: [10]\n", "")
    with_curves.repro("extract")
    without = with_curves.copy(folder / "without")
    without.change("{experiment: small}", "{experiment: small, live_seconds: 0}")
    with_curves.change("{experiment: small}", "{experiment: small, live_seconds: 0.2}")

    killed = with_curves.start("train")
    while not any(unfinished for _, _, unfinished in runs(with_curves)):
        if killed.poll() is not None:
            break  # trained before MLflow was up: the rest still has to hold
        time.sleep(0.1)
    if killed.poll() is None:
        os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    with_curves.repro("track")
    without.repro("track")

    assert weights(with_curves) == weights(without) != {}
    assert with_curves.trained() == without.trained()
    assert runs(with_curves) == runs(without)
    assert not any(unfinished for _, _, unfinished in runs(with_curves))
