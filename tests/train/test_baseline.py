"""Baselines: saved like trained SAEs, made without training one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_array
from sklearn.decomposition import PCA

from sae_repro.autoencoders import SAE, finished, initial_weights, load
from sae_repro.concepts.bank import ConceptBank
from sae_repro.concepts.halves import in_fit
from sae_repro.evaluate.codes import code_of
from sae_repro.evaluate.metrics.monosemanticity.score import monosemanticity
from sae_repro.files import read_json
from sae_repro.numerics.random import generator
from sae_repro.params import Cell, Train
from sae_repro.readers.shards import ActivationStore
from sae_repro.train.folder import hook_metadata
from sae_repro.train.job import CellJob, make_into
from sae_repro.train.makers.baseline import neurons, principal, untrained
from sae_repro.training.trainer import INITIAL_ROWS, Trainer, cell_id

HOOK = "blocks.0.hook_resid_post"
D, N, LENGTH = 48, 12_000, 20  # in few dimensions random directions come near enough to concepts
TRAIN = Train(batch_size=64, epochs=1, log_every=50)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., SAE]:
    """The SAE of a cell's folder, made as the stage makes it."""

    def go(store: Path, name: str, train: Train = TRAIN, **choices: Any) -> SAE:
        folder = tmp_path / name
        folder.mkdir()
        job = CellJob(
            name=name, cell=Cell.model_validate(choices), settings=train, hook=HOOK, seed=0,
            key=name, activations=store, store=tmp_path / "cells",
            checkpoint=tmp_path / f"{name}-checkpoint", metadata={"context_size": 21},
        )  # fmt: skip
        make_into(job, folder, lambda step: None)
        return load(folder)

    return go


def rows(store: Path, split: str = "train") -> torch.Tensor:
    batches = ActivationStore(store).activations(HOOK, split).batches(999)
    return torch.from_numpy(np.concatenate([np.array(x) for x in batches]))


def test_neurons_are_deviations_from_the_mean(
    make_store: Callable[..., Path], make: Callable[..., SAE]
) -> None:
    store = make_store()
    sae, x = make(store, "neurons", baseline="neurons"), rows(store)
    mean = x.double().mean(0)
    a, d = sae.encode(x), x.shape[1]
    assert torch.allclose(a[:, :d].double(), (x - mean).clamp_min(0), atol=1e-5)
    assert torch.allclose(a[:, d:].double(), (mean - x).clamp_min(0), atol=1e-5)


def test_principal_directions_are_scikit_learns(
    make_store: Callable[..., Path], make: Callable[..., SAE]
) -> None:
    store = make_store(train=3000)
    sae, x = make(store, "pca", baseline="pca"), rows(store)
    theirs = PCA().fit(x.double().numpy())
    d = x.shape[1]
    ours = sae.weights.W_dec[:d].double().numpy()
    aligned = (ours * theirs.components_).sum(1)
    assert np.abs(aligned) == pytest.approx(np.ones(d), abs=1e-5)
    z = sae.encode(x)
    along = (z[:, :d] - z[:, d:]).double().numpy()
    assert along.var(axis=0, ddof=1) == pytest.approx(theirs.explained_variance_, rel=1e-4)
    assert (z[:, :d] * z[:, d:] == 0).all()


@pytest.mark.parametrize("baseline", ["neurons", "pca"])
def test_a_basis_reconstructs_without_loss_and_its_folder_names_it(
    baseline: str, make_store: Callable[..., Path], make: Callable[..., SAE], tmp_path: Path
) -> None:
    store = make_store()
    sae, x = make(store, baseline, baseline=baseline), rows(store, "validation")
    assert (sae.architecture, sae.d_sae) == ("standard", 2 * sae.d_in)
    assert torch.allclose(sae.decode(sae.encode(x)), x, atol=1e-4)
    message = read_json(tmp_path / baseline / "train.json")
    assert (message["status"], message["steps"], message["d_sae"]) == ("ok", 0, 2 * sae.d_in)
    assert message["choices"] == {"activation": "relu", "baseline": baseline}
    assert sae.metadata is not None
    assert (sae.metadata["hook_name"], sae.metadata["context_size"]) == (HOOK, 21)


@given(st.lists(st.integers(1, 40), min_size=3, max_size=6), st.floats(0, 1e4))
@settings(max_examples=25, deadline=None)
def test_principal_directions_depend_on_neither_batches_nor_a_far_mean(
    sizes: list[int], offset: float
) -> None:
    """A variance taken as E x² − (E x)² would lose its digits to the offset."""
    x = torch.from_numpy(
        np.random.default_rng(sum(sizes)).standard_normal((sum(sizes), 3)) * [4, 2, 1]
    )
    whole = principal([x], x.mean(0))
    x = x + offset
    cut = principal(x.split(sizes), x.mean(0))
    assert torch.allclose(whole.weights.W_enc, cut.weights.W_enc, atol=1e-5)


def test_signs_of_principal_directions_are_fixed() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((500, D)))
    axes = principal([x], x.mean(0)).weights.W_dec[:D]
    assert (axes.gather(1, axes.abs().argmax(1, keepdim=True)) > 0).all()


CHOICES: list[dict[str, Any]] = [
    {},
    {"activation": "topk", "k": 3},
    {"activation": "batchtopk", "k": 3, "b_dec_init": "mean"},
    {"activation": "jumprelu", "jumprelu_bandwidth": 0.1},
    {"activation": "gated", "apply_b_dec_to_input": False},
]


@pytest.mark.parametrize("choices", CHOICES, ids=lambda c: str(c.get("activation", "relu")))
def test_an_untrained_sae_is_what_training_starts_from(
    choices: dict[str, Any], make_store: Callable[..., Path], make: Callable[..., SAE]
) -> None:
    store = make_store()
    sae = make(store, "untrained", baseline="untrained", expansion=4, **choices)
    cell = Cell.model_validate({"baseline": "untrained", "expansion": 4, **choices})
    reader = ActivationStore(store)
    trainer = Trainer(cell, TRAIN, reader, HOOK, seed=0, checkpoint=store)
    first = initial_weights(
        cell, sae.d_in, trainer.batches.sample(INITIAL_ROWS, "b_dec") * trainer.scale,
        generator(0, cell_id(cell), "weights"),
        epsilon=cell.jumprelu_bandwidth * reader.median_norm(HOOK) * trainer.scale,
    )  # fmt: skip
    started = finished(cell, first, scale=trainer.scale)
    for name, tensor in started.weights.named().items():
        assert torch.equal(tensor, getattr(sae.weights, name))
    if cell.activation == "batchtopk":
        reached = (sae.encode(rows(store, "calibration")) > 0).sum(1).double().mean()
        assert float(reached) == pytest.approx(3, abs=0.01)
    other = untrained(cell.model_copy(update={"seed": 1}), TRAIN, reader, HOOK, seed=0)
    assert not torch.equal(other.weights.W_dec, sae.weights.W_dec)


def planted() -> tuple[np.ndarray, np.ndarray]:
    """(x [N, D], labels [N, D]): a tenth of the tokens carry each concept, along turned axes."""
    rng = np.random.default_rng(0)
    labels = rng.random((N, D)) < 0.1
    turn, _ = np.linalg.qr(rng.standard_normal((D, D)))
    strength = rng.uniform(1, 2, labels.shape)
    return ((labels * strength) @ turn).astype(np.float32), labels


def scored(sae: SAE, x: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    at = np.arange(len(x))
    index = np.stack([at // LENGTH, at % LENGTH, at * 0], axis=1).astype(np.int32)
    bank = ConceptBank(
        names=tuple(f"c{i}" for i in range(D)),
        kinds=("class",) * D,
        labels=csc_array(labels),
        document=index[:, 0].astype(np.int64),
        position=index[:, 1].astype(np.int64),
        token=np.zeros(len(x), dtype=np.int64),
        fit=in_fit(0, index[:, 0]),
        left_out={},
    )
    z = sae.encode(torch.from_numpy(x))
    return monosemanticity(lambda: [code_of(z, index)], bank, 0, (z > 0).sum(0).numpy())


def share(frame: pd.DataFrame) -> float:
    return float(frame["class"].str.startswith("monosemantic").mean())


def test_a_basis_that_is_the_concepts_passes() -> None:
    """The measure is not to blame where neurons fail: where they are the concepts, they pass."""
    rng = np.random.default_rng(0)
    labels = rng.random((N, D)) < 0.1
    x = (labels * rng.uniform(1, 2, labels.shape)).astype(np.float32)
    frame = scored(neurons(torch.zeros(D, dtype=torch.float64)), x, labels)
    assert (frame["class"][:D] == "monosemantic-complete").all()
    assert (frame["class"][D:] == "dead").all()


def test_training_finds_what_no_negative_control_does(
    make_store: Callable[..., Path], make: Callable[..., SAE]
) -> None:
    x, labels = planted()
    store = make_store(train=x, d_in=D)
    topk = {"expansion": 2, "activation": "topk", "k": 5}
    found = {
        "trained": make(store, "trained", Train(batch_size=64, epochs=8), **topk, lr=3e-3),
        "neurons": make(store, "neurons", baseline="neurons"),
        "pca": make(store, "pca", baseline="pca"),
        "untrained": make(store, "untrained", baseline="untrained", **topk),
    }
    shares = {name: share(scored(sae, x, labels)) for name, sae in found.items()}
    assert shares.pop("trained") > 0.4
    assert max(shares.values()) < 0.1


def test_a_folder_names_the_hook_as_its_model_does() -> None:
    """Other libraries know no `untrained/`: that the weights were random is said beside it."""
    assert hook_metadata(HOOK) == {"hook_name": HOOK}
    assert hook_metadata(f"untrained/{HOOK}") == {"hook_name": HOOK, "model_weights": "random"}
