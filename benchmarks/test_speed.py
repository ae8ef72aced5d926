"""Speed, as ratios within one run: single times on a shared machine say little.

make bench prints pytest-benchmark's table, and below it each median divided by that of the bare
encoder product x·W_enc of the same run (or, for reading shards, by a plain copy of the bytes).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_repro.extract.sinks import ShuffledSink
from sae_repro.files import write_json
from sae_repro.params import Cell, Train
from sae_repro.params.axis_labels import ACTIVATION_LABELS
from sae_repro.readers.shards import ActivationStore
from sae_repro.training import Batches, Trainer

ROOT = Path(__file__).resolve().parents[1]
HOOK, D, EXPANSION, BATCH, ROWS = "blocks.0.hook_resid_post", 64, 16, 512, 65_536
CELLS = {
    "vanilla": Cell(expansion=EXPANSION, penalty="l1", lambda_=1e-2),
    "vanilla, resampling": Cell(
        expansion=EXPANSION, penalty="l1", lambda_=1e-2, revival="resample", resample_every=500
    ),
    "l1 over decoder norm": Cell(
        expansion=EXPANSION, penalty="l1_decoder_norm", lambda_=1e-2, decoder="free"
    ),
    "topk": Cell(expansion=EXPANSION, activation="topk", k=16),
    "topk, auxk": Cell(
        expansion=EXPANSION, activation="topk", k=16, revival="auxk", dead_tokens=50_000
    ),
    "batchtopk": Cell(expansion=EXPANSION, activation="batchtopk", k=16),
    "matryoshka fixed": Cell(expansion=EXPANSION, activation="batchtopk", k=16, prefixes="fixed"),
    "matryoshka random": Cell(expansion=EXPANSION, activation="batchtopk", k=16, prefixes="random"),
    "vanilla, matryoshka random": Cell(
        expansion=EXPANSION, penalty="l1", lambda_=1e-2, prefixes="random"
    ),
    "tanh": Cell(expansion=EXPANSION, penalty="tanh", lambda_=1e-2),
    "jumprelu": Cell(
        expansion=EXPANSION, activation="jumprelu", penalty="l0", lambda_=1e-3, target_l0=16
    ),
    "gated": Cell(
        expansion=EXPANSION, activation="gated", penalty="l1", lambda_=1e-2, target_l0=16
    ),
}
CELLS |= {
    name: Cell(expansion=EXPANSION, activation=name, **row.example)
    for name, row in ACTIVATION_LABELS.items()
    if name not in {cell.activation for cell in CELLS.values()}
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """What a cell gets in the grid."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    """Training activations: sparse mixtures of 300 atoms."""
    folder = tmp_path_factory.mktemp("extract")
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((300, D)).astype(np.float32)
    z = (rng.random((ROWS, 300)) < 0.03) * rng.random((ROWS, 300))
    sink = ShuffledSink(folder, [HOOK], D, "float32", shards=4, rng=rng)
    sink.append({HOOK: (z @ atoms).astype(np.float32)}, np.zeros((ROWS, 3), dtype=np.int32))
    shards = sink.close()
    hook = {"d_in": D, "rms": 8.0, "shards": {"train": shards[HOOK]}}
    write_json(folder / "manifest.json", {"hooks": {HOOK: hook}, "index": {}})
    return ActivationStore(folder)


def test_encoder_product(benchmark: Any) -> None:
    """The reference: one product of the step's shape."""
    x, w = torch.randn(BATCH, D), torch.randn(D, D * EXPANSION)
    benchmark.extra_info["reference"] = "step"
    benchmark.pedantic(lambda: x @ w, rounds=200, warmup_rounds=20)


@pytest.mark.parametrize("name", CELLS)
def test_step(name: str, benchmark: Any, store: ActivationStore, tmp_path: Path) -> None:
    """One whole training step: loss, gradient, Adam, constraint, clocks."""
    trainer = Trainer(CELLS[name], Train(), store, HOOK, seed=0, checkpoint=tmp_path / "c")
    batches = list(trainer.batches.starting_at(0))[:20]
    step = 0

    def one() -> None:
        nonlocal step
        trainer._step(step, batches[step % len(batches)])
        step += 1

    benchmark.extra_info["of"] = "step"
    benchmark.pedantic(one, rounds=60, warmup_rounds=10)


def test_copy_of_the_shards_bytes(benchmark: Any, store: ActivationStore) -> None:
    """The reference for reading: the same bytes copied in memory."""
    x = np.concatenate(list(store.activations(HOOK, "train").batches(ROWS)))
    benchmark.extra_info["reference"] = "read"
    benchmark.pedantic(x.copy, rounds=30, warmup_rounds=3)


def test_shuffled_epoch(benchmark: Any, store: ActivationStore) -> None:
    """An epoch's batches: checksums, shuffled rows, fp32."""
    shards = store.activations(HOOK, "train")
    batches = Batches(shards, BATCH, 1, seed=0, cell_id="bench")
    benchmark.extra_info["of"] = "read"
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
