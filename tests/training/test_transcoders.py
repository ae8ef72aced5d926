"""Transcoders: known maps are learnt, and the laws of the trainer hold for them too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from sae_repro.params import Cell, Train
from sae_repro.readers.shards import ActivationStore
from sae_repro.training import Trained, Trainer

from ..paired_stores import INPUT, TARGET, paired

D, D_OUT, UNITS = 8, 11, 6
SETTINGS = Train(batch_size=64, epochs=1, log_every=50, checkpoint_every=20)
RNG = np.random.default_rng(7)
A, OFFSET = RNG.standard_normal((D, D_OUT)), RNG.standard_normal(D_OUT)
READ = np.linalg.qr(RNG.standard_normal((D, D)))[0][:UNITS]
"""Directions [units, D] that the toy world's units read."""
WRITTEN = np.linalg.qr(RNG.standard_normal((D_OUT, D_OUT)))[0][:UNITS]


def affine(x: np.ndarray) -> np.ndarray:
    """y [N, D_OUT] without a nonlinearity."""
    return 3 * (x @ A + OFFSET)


def units(x: np.ndarray) -> np.ndarray:
    """Activations [N, units] of the toy world's ReLU units, each of which fires sometimes."""
    return np.maximum((x - x_mean()) @ READ.T - 0.3, 0)


def x_mean() -> np.ndarray:
    """The mean of the fixture's activations, [D]."""
    return 0.5 + 0.03 * np.random.default_rng(0).standard_normal((3 * D, D)).sum(0)


def rectified(x: np.ndarray) -> np.ndarray:
    """y [N, D_OUT]: what the units write, and an offset."""
    return units(x) @ WRITTEN + OFFSET


def cell_of(**choices: Any) -> Cell:
    """A transcoder with these choices."""
    return Cell.model_validate({"expansion": 2, "target_hook": TARGET, **choices})


CELLS = {
    "relu": cell_of(penalty="l1", **{"lambda": 1e-2}),
    "skip": cell_of(penalty="l1", skip=True, **{"lambda": 1e-2}),
    "topk-auxk": cell_of(activation="topk", k=3, revival="auxk", dead_tokens=200, skip=True),
    "batchtopk-matryoshka": cell_of(activation="batchtopk", k=3, prefixes="random", skip=True),
    "jumprelu": cell_of(activation="jumprelu", penalty="l0", jumprelu_bandwidth=0.1, lr=5e-3,
                        order="contribution", prefixes="fixed", prefix_shares=[0.25, 0.75],
                        **{"lambda": 1e-2}),
    "gated-resample": cell_of(activation="gated", penalty="l1", revival="resample", lr=0.05,
                              resample_every=20, resample_tokens=500, skip=True,
                              **{"lambda": 0.1}),
    "free": cell_of(penalty="l1_decoder_norm", decoder="free", normalisation="none",
                    **{"lambda": 1e-2}),
}  # fmt: skip


@pytest.fixture
def store(make_store: Callable[..., Path], sparse_rows: Callable[..., np.ndarray]) -> Path:
    return paired(make_store, sparse_rows, rectified)


def train(
    folder: Path, cell: Cell, checkpoint: Path, settings: Train = SETTINGS, **run: Any
) -> Trained:
    trainer = Trainer(cell, settings, ActivationStore(folder), INPUT, seed=0, checkpoint=checkpoint)
    return trainer.run(**run)


def bits(trained: Trained) -> dict[str, bytes]:
    return {n: t.detach().numpy().tobytes() for n, t in trained.sae.weights.named().items()}


def fvu(trained: Trained, folder: Path) -> float:
    """On held-out activations as they are: raw."""
    store = ActivationStore(folder)
    x, y = (
        torch.from_numpy(store.activations(hook, "validation").whole()) for hook in (INPUT, TARGET)
    )
    sae = trained.sae
    error = y - sae.with_skip(sae.decode(sae.encode(x)), x)
    return float(error.square().sum() / (y - y.mean(0)).square().sum())


def test_a_skip_transcoder_learns_an_affine_map_and_latents_alone_do_not(
    make_store: Callable[..., Path], sparse_rows: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    folder = paired(make_store, sparse_rows, affine)
    cell = cell_of(activation="topk", k=1, expansion=0.5, tokens=64 * 1000, grad_clip=None)
    with_skip = train(folder, cell.model_copy(update={"skip": True}), tmp_path / "a")
    assert fvu(with_skip, folder) < 1e-4
    assert fvu(train(folder, cell, tmp_path / "b"), folder) > 0.3
    assert with_skip.sae.weights.W_skip is not None
    assert with_skip.sae.weights.W_skip.shape == (D_OUT, D)


def test_a_known_map_of_relu_units_is_recovered(store: Path, tmp_path: Path) -> None:
    """Each unit has a latent that reads its direction and writes its own."""
    cell = cell_of(penalty="l1", expansion=2, tokens=64 * 2000, grad_clip=None, **{"lambda": 3e-3})
    trained = train(store, cell, tmp_path / "c")
    assert fvu(trained, store) < 0.03
    weights = trained.sae.weights
    read = torch.nn.functional.normalize(weights.W_enc.detach().double(), dim=0).numpy()
    cosine = WRITTEN @ weights.W_dec.detach().double().numpy().T
    unit, latent = linear_sum_assignment(-cosine)
    assert cosine[unit, latent].min() > 0.95
    assert (READ @ read)[unit, latent].min() > 0.9


@pytest.mark.parametrize("name", CELLS)
def test_a_killed_transcoder_ends_as_an_undisturbed_one(
    name: str, store: Path, tmp_path: Path
) -> None:
    """And logging, checkpoints and their intervals change no bit."""
    whole = train(store, CELLS[name], tmp_path / "whole")

    def kill(step: int) -> None:
        if step > 40:
            raise KeyboardInterrupt

    often = SETTINGS.model_copy(update={"log_every": 7})
    with pytest.raises(KeyboardInterrupt):
        train(store, CELLS[name], tmp_path / "killed", often, progress=kill)
    resumed = train(store, CELLS[name], tmp_path / "killed", often)
    assert bits(resumed) == bits(whole)
    assert resumed.sae.weights.W_dec.shape == (16, D_OUT)
    assert bool(resumed.sae.weights.W_skip is not None) == CELLS[name].skip
    assert fvu(whole, store) < 1
    assert 0 < whole.journal.metrics[-1]["fvu"] < 1
