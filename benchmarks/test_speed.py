"""Reading of shards, over a plain copy of the bytes; DVC's start."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_repro.readers.shards import ActivationStore
from sae_repro.training import Batches

from .shapes import HOOK, store_of

ROOT = Path(__file__).resolve().parents[1]
D, BATCH, ROWS = 64, 512, 65_536


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    """Training activations."""
    x_nd = np.random.default_rng(0).standard_normal((ROWS, D), dtype=np.float32)
    return store_of(x_nd, tmp_path_factory.mktemp("extract"))


def test_copy_of_the_shards_bytes(benchmark: Any, store: ActivationStore) -> None:
    """The reference for reading: the same bytes copied in memory."""
    x = np.concatenate(list(store.activations(HOOK, "train").batches(ROWS)))
    benchmark.extra_info["reference"] = True
    benchmark.pedantic(x.copy, rounds=30, warmup_rounds=3)


def test_shuffled_epoch(benchmark: Any, store: ActivationStore) -> None:
    """An epoch's batches: checksums, shuffled rows, fp32."""
    shards = store.activations(HOOK, "train")
    batches = Batches(shards, BATCH, 1, seed=0, cell_id="bench")
    benchmark.extra_info["rows"] = ROWS
    benchmark.pedantic(lambda: sum(len(b) for b in batches.starting_at(0)), rounds=10)


def test_pipeline_with_nothing_to_do(benchmark: Any) -> None:
    """`dvc repro` of the root study when all is done; skipped where it is not."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def dvc(*arguments: str) -> str:
        done = subprocess.run(
            ["dvc", *arguments], cwd=ROOT, env=env, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    if "up to date" not in dvc("status", "dvc.yaml"):
        pytest.skip("the root study is not up to date: run `make repro` first")
    benchmark.pedantic(lambda: dvc("repro"), rounds=3)
