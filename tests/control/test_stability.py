"""Stability against the truth: it finds atoms, except where all seeds make the same mistake."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_repro.autoencoders import SAE, Weights
from sae_repro.autoencoders.partners import Match
from sae_repro.control.held import HOOK, HeldStore
from sae_repro.control.measure import measure
from sae_repro.control.planned import Trial
from sae_repro.control.recipes import BATCH, L1, MATRYOSHKA, _cell
from sae_repro.control.stability import Learnt, prediction, stability_auc
from sae_repro.control.trial import make_world
from sae_repro.control.worlds import Atoms, Sample, tree_atoms, tree_sample
from sae_repro.params import Train
from sae_repro.training import Trainer

STEPS = 700


@pytest.fixture(autouse=True)
def deterministic_only_here() -> Iterator[None]:
    """Training makes torch's kernels deterministic for its process, here the tests'."""
    before = torch.get_deterministic_debug_mode()
    yield
    torch.set_deterministic_debug_mode(before)


def learnt(sae: SAE, atoms: Atoms, sample: Sample) -> Learnt:
    with torch.no_grad():
        alive_k = (sae.encode(torch.from_numpy(sample.x_nd)) > 0).any(dim=0).numpy()
    return Learnt.of(sae, alive_k, measure(sae, atoms, sample))


def auc_of(folder: Path, world: str, d_in: int, width: int, **choices: Any) -> float | None:
    """Of three seeds on one world, all else alike."""
    cell = _cell(d_in, width, **choices)
    trial = Trial(world, world, "any", 0, d_in, BATCH, STEPS, STEPS * BATCH, cell)
    atoms, samples = make_world(trial, 0, folder)
    store = HeldStore(samples["train"].x_nd, samples["calibration"].x_nd)
    settings = Train(batch_size=BATCH, epochs=1, log_every=100, checkpoint_every=10**9)
    saes = [
        Trainer(cell, settings, store, HOOK, seed=seed, checkpoint=folder / f"{seed}").run().sae
        for seed in range(3)
    ]
    return stability_auc([learnt(sae, atoms, samples["held_out"]) for sae in saes])


def test_stable_latents_of_the_toy_tree_are_atoms_where_nothing_is_absorbed(tmp_path: Path) -> None:
    auc = auc_of(tmp_path, "tree", 20, 40, lr=1e-2, **L1, **MATRYOSHKA)
    assert auc is not None and auc >= 0.9


@pytest.mark.slow
def test_what_every_seed_absorbs_is_stable_and_no_atom(tmp_path: Path) -> None:
    auc = auc_of(tmp_path, "tree", 20, 40, lr=1e-2, activation="topk", k=2)
    assert auc is not None and auc < 0.75


def planted(rows: np.ndarray, encoder: np.ndarray | None = None) -> SAE:
    """Latents with these rows, which are their encoder's columns too, where none are given."""
    weights = torch.from_numpy(rows).float()
    k, d = weights.shape
    w_enc = weights if encoder is None else torch.from_numpy(encoder).float()
    return SAE("standard", Weights(w_enc.T.contiguous(), torch.zeros(k), weights, torch.zeros(d)))


@pytest.fixture
def world() -> tuple[Atoms, Sample]:
    """Eight of 32 axes are atoms; each row is a few of them and what no atom explains."""
    rng = np.random.default_rng(0)
    atoms = Atoms(np.eye(32, dtype=np.float32)[:8], tuple("abcdefgh"), np.full(8, -1))
    a_nf = (rng.random((500, 8)) < 0.2).astype(np.float32)
    x_nd = np.concatenate([a_nf, rng.standard_normal((500, 24))], axis=1)
    return atoms, Sample(x_nd.astype(np.float32), a_nf)


def found(world: tuple[Atoms, Sample], rng: np.random.Generator, latents: int = 16) -> SAE:
    """The eight atoms, and random directions in what is no atom, in any order."""
    noise = np.concatenate([np.zeros((latents - 8, 8)), rng.standard_normal((latents - 8, 24))], 1)
    rows = np.concatenate([np.eye(32)[:8], noise / np.linalg.norm(noise, axis=1)[:, None]])
    return planted(rows[rng.permutation(latents)])


def test_atoms_that_all_found_beside_noise_are_told_apart(world: tuple[Atoms, Sample]) -> None:
    rng = np.random.default_rng(1)
    members = [learnt(found(world, rng), *world) for _ in range(3)]
    assert stability_auc(members) == 1.0
    said = prediction(members)
    assert (said["seeds"], said["latents"], said["recovered"]) == (3, 48, 24)
    assert said["stability_auc"] == said["stability_auc_low"] == said["stability_auc_high"] == 1.0
    assert (said["shared"], said["shared_recovered"]) == (24, 24)


def test_where_every_latent_is_an_atom_nothing_is_told_apart(world: tuple[Atoms, Sample]) -> None:
    members = [learnt(planted(np.eye(32)[:8]), *world)] * 2
    assert stability_auc(members) is None
    said = prediction(members)
    assert said["stability_auc"] is said["stability_auc_low"] is None
    assert said["recovered"] == said["shared_recovered"] == 16


def test_a_pair_that_says_nothing_takes_the_interval(world: tuple[Atoms, Sample]) -> None:
    perfect = learnt(planted(np.eye(32)[:8]), *world)
    other = learnt(found(world, np.random.default_rng(4)), *world)
    assert stability_auc([perfect, perfect]) is None
    said = prediction([perfect, perfect, other])
    assert said["stability_auc"] == stability_auc([perfect, other]) is not None
    assert said["stability_auc_low"] is said["stability_auc_high"] is None


def test_a_row_that_fires_elsewhere_recovers_nothing(world: tuple[Atoms, Sample]) -> None:
    """Each latent's encoder reads the atom of the next one."""
    rows = np.eye(32)[:8]
    assert learnt(planted(rows), *world).recovered_k.tolist() == [True] * 8
    assert (
        learnt(planted(rows, np.roll(rows, 1, axis=0)), *world).recovered_k.tolist() == [False] * 8
    )


def test_sums_that_every_seed_finds_are_stable_and_recover_nothing(
    world: tuple[Atoms, Sample],
) -> None:
    """Beside four atoms, all as far off as the next seed's: how stable they are tells nothing."""
    rng = np.random.default_rng(3)
    rows = np.eye(32)[:8].copy()
    rows[4:] += np.eye(32)[:4]
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    off = [np.concatenate([np.zeros((8, 8)), rng.standard_normal((8, 24))], 1) for _ in range(3)]
    saes = [planted(rows) for _ in off]
    for sae, noise in zip(saes, off, strict=True):
        sae.weights.W_dec += torch.from_numpy(0.02 * noise).float()
    said = prediction([learnt(sae, *world) for sae in saes])
    assert (said["recovered"], said["shared"], said["shared_recovered"]) == (12, 24, 12)
    assert 0.2 < said["stability_auc"] < 0.8


def test_trees_that_are_turned_are_compared_along_their_atoms() -> None:
    """Each of three seeds finds the atoms of its own tree, and the sum of two, in any order."""
    members = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        atoms = tree_atoms(30, rng)
        rows = atoms.directions_fd.astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1)[:, None]
        rows = np.concatenate([rows[1:], (rows[:1] + rows[1:2]) / np.sqrt(2)])
        sae = planted(rows[rng.permutation(len(rows))])
        sae.weights.b_enc -= 0.1  # or rounding would have orthogonal atoms fire
        members.append(learnt(sae, atoms, tree_sample(atoms, 500, rng)).along(atoms.directions_fd))
    said = prediction(members)
    assert (said["latents"], said["shared"], said["recovered"]) == (60, 60, 57)
    for a, b in combinations(members, 2):
        assert Match.of(a.directions, b.directions).cosine == pytest.approx(1, abs=1e-6)


def test_what_was_saved_is_loaded(world: tuple[Atoms, Sample], tmp_path: Path) -> None:
    one = learnt(found(world, np.random.default_rng(2)), *world)
    one.save(tmp_path / "0.npz")
    again = Learnt.load(tmp_path / "0.npz")
    assert np.array_equal(again.recovered_k, one.recovered_k)
    assert np.array_equal(again.directions.decoder_kd, one.directions.decoder_kd)
    assert np.array_equal(again.directions.encoder_kd, one.directions.encoder_kd)
