"""Stability against the truth: it finds atoms, except where all seeds make the same mistake."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_repro.autoencoders import SAE, Weights
from sae_repro.control.recipes import BATCH, L1, MATRYOSHKA, Trial, _cell
from sae_repro.control.stability import stability_auc
from sae_repro.control.trial import HOOK, as_store, make_world
from sae_repro.control.worlds import Atoms, Sample
from sae_repro.params import Train
from sae_repro.training import Trainer

STEPS = 700


@pytest.fixture(autouse=True)
def deterministic_only_here() -> Iterator[None]:
    """Training makes torch's kernels deterministic for its process, here the tests'."""
    before = torch.get_deterministic_debug_mode()
    yield
    torch.set_deterministic_debug_mode(before)


def auc_of(folder: Path, world: str, d_in: int, width: int, **choices: Any) -> float | None:
    """Of three seeds on one world, all else alike."""
    cell = _cell(d_in, width, **choices)
    trial = Trial(world, world, "any", 0, d_in, BATCH, STEPS, STEPS * BATCH, cell)
    atoms, samples = make_world(trial, 0, folder)
    store = as_store(folder, samples["train"].x_nd, samples["calibration"].x_nd)
    settings = Train(batch_size=BATCH, epochs=1, log_every=100, checkpoint_every=10**9)
    saes = [
        Trainer(cell, settings, store, HOOK, seed=seed, checkpoint=folder / f"{seed}").run().sae
        for seed in range(3)
    ]
    return stability_auc(saes, atoms, samples["held_out"])


def test_stable_latents_of_the_toy_tree_are_atoms_where_nothing_is_absorbed(tmp_path: Path) -> None:
    auc = auc_of(tmp_path, "tree", 20, 40, lr=1e-2, **L1, **MATRYOSHKA)
    assert auc is not None and auc >= 0.9


@pytest.mark.slow
def test_stable_latents_among_many_random_atoms_are_atoms(tmp_path: Path) -> None:
    auc = auc_of(tmp_path, "sparse", 32, 96, lr=3e-3, activation="topk", k=2)
    assert auc is not None and auc >= 0.9


@pytest.mark.slow
def test_what_every_seed_absorbs_is_stable_and_no_atom(tmp_path: Path) -> None:
    auc = auc_of(tmp_path, "tree", 20, 40, lr=1e-2, activation="topk", k=2)
    assert auc is not None and auc < 0.75


def planted(rows: np.ndarray) -> SAE:
    weights = torch.from_numpy(rows).float()
    k, d = weights.shape
    return SAE("standard", Weights(weights.T.contiguous(), torch.zeros(k), weights, torch.zeros(d)))


def test_atoms_that_all_found_beside_noise_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    atoms = Atoms(np.eye(32, dtype=np.float32)[:8], tuple("abcdefgh"), np.full(8, -1))
    x_nd = rng.standard_normal((500, 32)).astype(np.float32)
    sample = Sample(x_nd, np.zeros((500, 8), np.float32))
    saes = []
    for _ in range(3):
        noise = rng.standard_normal((8, 32))
        rows = np.concatenate([np.eye(32)[:8], noise / np.linalg.norm(noise, axis=1)[:, None]])
        saes.append(planted(rows[rng.permutation(16)]))
    assert stability_auc(saes, atoms, sample) == 1.0
    assert stability_auc([planted(np.eye(32)[:8])] * 2, atoms, sample) is None
