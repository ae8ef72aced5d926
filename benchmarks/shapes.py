"""Sizes at which steps are timed, and activations for them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sae_repro.extract.sinks import ShuffledSink
from sae_repro.files import write_json
from sae_repro.readers.shards import ActivationStore

HOOK = "blocks.0.hook_resid_post"
BATCHES = 8  # different ones, taken in turn


@dataclass(frozen=True)
class Shape:
    """D dimensions, K latents, batches of B tokens, k active latents a token."""

    d: int
    k_all: int
    batch: int
    k: int

    def __str__(self) -> str:
        return f"D {self.d}, K {self.k_all}, batch {self.batch}, k {self.k}"


SHAPES = {
    "root": Shape(64, 512, 512, 16),  # the root study's
    "S": Shape(128, 2048, 1024, 32),
    "M": Shape(768, 6144, 1024, 32),
    "L": Shape(768, 24576, 1024, 32),
}


def activations(shape: Shape) -> "np.ndarray":
    """[8 · B, D]: each token is a sum of twenty of 8 D random unit atoms."""
    rng, rows, active = np.random.default_rng(0), BATCHES * shape.batch, 20
    atoms = rng.standard_normal((8 * shape.d, shape.d), dtype=np.float32)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    x_nd = np.zeros((rows, shape.d), dtype=np.float32)
    for _ in range(active):
        strength = rng.random((rows, 1), dtype=np.float32) + 0.5
        x_nd += strength * atoms[rng.integers(len(atoms), size=rows)]
    return x_nd


def store_of(x_nd: "np.ndarray", folder: Path) -> ActivationStore:
    """The activations as `extract` writes them."""
    rows, d = x_nd.shape
    sink = ShuffledSink(folder, [HOOK], d, "float32", shards=1, rng=np.random.default_rng(0))
    sink.append({HOOK: x_nd}, np.zeros((rows, 3), dtype=np.int32))
    norms = np.linalg.norm(x_nd.astype(np.float64), axis=1)
    hook = {
        "d_in": d,
        "rms": float(np.sqrt(np.square(norms).mean())),
        "median_norm": float(np.median(norms)),
        "shards": {"train": sink.close()[HOOK]},
    }
    write_json(folder / "manifest.json", {"hooks": {HOOK: hook}, "index": {}})
    return ActivationStore(folder)
