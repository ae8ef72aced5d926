"""Crosscoders: shared and exclusive atoms are found, and the laws of the trainer hold for them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from sae_repro.autoencoders import Crosscoder, crosscoder_of
from sae_repro.errors import StudyError
from sae_repro.files import read_json, sha256_file, write_json
from sae_repro.params import Cell, Train
from sae_repro.readers.joined import JoinedStore
from sae_repro.training import Trained, Trainer

from ..joined_stores import BOTH, D_FIRST, D_SECOND, FIRST, LOUD, SECOND, World, draw, joined, world

SETTINGS = Train(batch_size=64, epochs=1, log_every=50, checkpoint_every=20)


def cell_of(**choices: Any) -> Cell:
    """A crosscoder with these choices."""
    return Cell.model_validate({"expansion": 1, "hooks": [FIRST, SECOND], **choices})


CELLS = {
    "relu": cell_of(penalty="l1", **{"lambda": 1e-2}),
    "topk-auxk": cell_of(activation="topk", k=3, revival="auxk", dead_tokens=200),
    "batchtopk-matryoshka": cell_of(activation="batchtopk", k=3, prefixes="random"),
    "jumprelu": cell_of(activation="jumprelu", penalty="l0", jumprelu_bandwidth=0.1, lr=5e-3,
                        order="contribution", prefixes="fixed", prefix_shares=[0.25, 0.75],
                        **{"lambda": 1e-2}),
    "gated-resample": cell_of(activation="gated", penalty="l1", revival="resample", lr=0.05,
                              resample_every=20, resample_tokens=500, **{"lambda": 0.1}),
    "free": cell_of(penalty="l1_decoder_norm", decoder="free", **{"lambda": 1e-2}),
    "plain": cell_of(penalty="l1_decoder_norm", decoder="free", normalisation="none",
                     **{"lambda": 1e-2}),
}  # fmt: skip


@pytest.fixture(scope="module")
def known() -> World:
    return world()


@pytest.fixture
def store(make_store: Callable[..., Path], known: World) -> Path:
    return joined(make_store, known)


def train(
    folder: Path, cell: Cell, checkpoint: Path, settings: Train = SETTINGS, **run: Any
) -> Trained:
    trainer = Trainer(cell, settings, JoinedStore(folder), BOTH, seed=0, checkpoint=checkpoint)
    return trainer.run(**run)


def bits(trained: Trained) -> dict[str, bytes]:
    return {n: t.detach().numpy().tobytes() for n, t in trained.sae.weights.named().items()}


def parts(trained: Trained) -> Crosscoder:
    found = crosscoder_of(trained.sae)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("choices", "near"),
    [({"penalty": "l1", "lambda": 1e-2}, 0.02), ({"activation": "topk", "k": 2}, 0.1)],
    ids=["l1", "topk"],
)
def test_atoms_of_both_hooks_and_of_one_alone_are_recovered(
    choices: dict[str, Any],
    near: float,
    make_store: Callable[..., Path],
    known: World,
    tmp_path: Path,
) -> None:
    """Each atom has a latent along it at every hook, whose norms are divided as the atom's are."""
    folder = joined(make_store, known)
    cell = cell_of(tokens=64 * 2500, expansion=0.6, grad_clip=None, **choices)
    cross = parts(train(folder, cell, tmp_path / "c"))
    # as training sees both hooks: of one loudness
    rows = cross.apart(cross.sae.weights.W_dec.detach().double())
    scales = dict(zip(cross.hooks, cross.scales, strict=True))
    latents = torch.cat([rows[hook] * scales[hook] for hook in cross.hooks], dim=1).numpy()
    atoms = np.concatenate([known.first * scales[FIRST], known.second * LOUD * scales[SECOND]], 1)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    cosine = atoms @ (latents / np.linalg.norm(latents, axis=1, keepdims=True)).T
    _, latent = linear_sum_assignment(-cosine)
    assert cosine[range(len(atoms)), latent].min() > 0.98
    share = cross.shares()[SECOND].numpy()[latent]
    np.testing.assert_allclose(share, expected_share(known, cross), atol=near)
    assert 0.4 < share[:4].min() < share[:4].max() < 0.7
    raw = [torch.from_numpy(side) for side in draw(known, 2000, 9)]
    x = dict(zip(cross.hooks, raw, strict=True))
    for hook, x_hat in cross.decode(cross.encode(x)).items():
        variance = (x[hook] - x[hook].mean(0)).square().sum()
        assert float((x[hook] - x_hat).square().sum() / variance) < 1.5 * near


def expected_share(known: World, cross: Crosscoder) -> np.ndarray:
    """Of each atom, what the second hook has of its norms once both are of one loudness."""
    norms = [np.linalg.norm(side, axis=1) * scale * loud for side, scale, loud in
             zip(known, cross.scales, (1, LOUD), strict=True)]  # fmt: skip
    return np.asarray(norms[1] / (norms[0] + norms[1]))


@pytest.mark.parametrize("name", CELLS)
def test_a_saved_crosscoder_does_to_raw_activations_what_training_did(
    name: str, store: Path, tmp_path: Path, known: World
) -> None:
    """Latents keep their order, and x̂ is the trained one with each hook's scale taken back."""
    cell = CELLS[name]
    trainer = Trainer(cell, SETTINGS, JoinedStore(store), BOTH, seed=0, checkpoint=tmp_path / "c")
    sae = trainer.run().sae
    weights = trainer.weights
    raw = torch.from_numpy(np.concatenate(draw(known, 200, 5), axis=1))
    x = trainer._scaled(raw)
    with torch.no_grad():
        z = sae.encode(raw)
        u = (x - weights.b_dec) @ weights.W_enc + weights.b_enc
        norm = weights.W_dec.norm(dim=1)
        factor = trainer.target_scale
        if cell.activation in ("relu", "topk"):
            u_trained = u if cell.decoder == "unit_norm" else u * norm
            if cell.k is not None:
                kept = u_trained.topk(cell.k, dim=1).values[:, -1:]
                u_trained = torch.where(u_trained >= kept, u_trained, 0)
            torch.testing.assert_close(z * factor, u_trained.relu(), rtol=1e-3, atol=1e-4)
        decoded = sae.decode(z)
        own = (z * factor / norm.clamp_min(1e-30)) @ weights.W_dec + weights.b_dec
        torch.testing.assert_close(trainer._scaled(decoded), own, rtol=1e-3, atol=1e-3)
    norms = torch.stack([*parts(Trained(sae, *[None] * 2)).decoder_norms().values()])  # type: ignore[list-item]
    torch.testing.assert_close(norms.square().sum(0), torch.ones(sae.d_sae).double(), rtol=1e-5,
                               atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("name", CELLS)
def test_a_killed_crosscoder_ends_as_an_undisturbed_one(
    name: str, store: Path, tmp_path: Path
) -> None:
    def kill(step: int) -> None:
        if step >= 50:
            raise KeyboardInterrupt

    whole = train(store, CELLS[name], tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(store, CELLS[name], tmp_path / "killed", progress=kill)
    assert (tmp_path / "killed").exists()
    assert bits(train(store, CELLS[name], tmp_path / "killed")) == bits(whole)


def test_a_hooks_loudness_decides_nothing(
    store: Path, make_store: Callable[..., Path], known: World, tmp_path: Path
) -> None:
    """Twice as large activations at one hook: the same training, to the bit, and code."""
    louder = tmp_path / "louder"
    shutil.copytree(store, louder)
    manifest = read_json(louder / "manifest.json")
    for entries in manifest["hooks"][SECOND]["shards"].values():
        for entry in entries:
            path = louder / entry["file"]
            np.save(path, 2 * np.load(path))
            entry["sha256"] = sha256_file(path)
    path = louder / SECOND / "mean.npy"
    np.save(path, 2 * np.load(path))
    manifest["hooks"][SECOND] |= {
        "mean_sha256": sha256_file(path),
        **{key: 2 * manifest["hooks"][SECOND][key] for key in ("rms", "median_norm")},
    }
    write_json(louder / "manifest.json", manifest)
    quiet, loud = (parts(train(folder, CELLS["free"], tmp_path / folder.name / "c"))
                   for folder in (store, louder))  # fmt: skip
    torch.testing.assert_close(
        torch.stack([*quiet.shares().values()]), torch.stack([*loud.shares().values()]),
        rtol=1e-6, atol=1e-6,
    )  # fmt: skip
    x = dict(zip((FIRST, SECOND), map(torch.from_numpy, draw(known, 50, 6)), strict=True))
    of_loud = {FIRST: x[FIRST], SECOND: 2 * x[SECOND]}
    z, z_loud = quiet.encode(x), loud.encode(of_loud)
    torch.testing.assert_close(z / z.norm(), z_loud / z_loud.norm(), rtol=1e-4, atol=1e-6)
    x_hat, louder_hat = quiet.decode(z), loud.decode(z_loud)
    torch.testing.assert_close(2 * x_hat[SECOND], louder_hat[SECOND], rtol=1e-4, atol=1e-3)


def test_rows_of_other_tokens_are_refused(store: Path, tmp_path: Path) -> None:
    manifest = read_json(store / "manifest.json")
    manifest["hooks"][SECOND]["shards"]["train"][0]["rows"] += 1
    write_json(store / "manifest.json", manifest)
    with pytest.raises(StudyError, match=r"train shards of blocks\.1\.hook_mlp_out have other"):
        train(store, CELLS["relu"], tmp_path / "c")


def test_the_store_reads_hooks_side_by_side(store: Path) -> None:
    read = JoinedStore(store)
    for split in ("train", "validation"):
        whole = read.activations(BOTH, split).whole()
        apart = [read.activations(hook, split).whole() for hook in (FIRST, SECOND)]
        np.testing.assert_array_equal(whole, np.concatenate(apart, axis=1))
    assert read.d_in(BOTH) == D_FIRST + D_SECOND
    whole = read.activations(BOTH, "train").whole().astype(np.float64)
    assert read.rms(BOTH) == pytest.approx(np.sqrt(np.square(whole).sum(1).mean()), rel=1e-6)
    np.testing.assert_allclose(read.mean(BOTH), whole.mean(0), rtol=1e-6)
    assert read.median_norm(BOTH) == pytest.approx(
        np.median(np.linalg.norm(whole, axis=1)), rel=0.1
    )
