"""What an SAE is compared with: latents of the same kind, made without training one."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csc_array

from sae_repro.evaluate.baselines import Latents, neurons, principal, untrained
from sae_repro.evaluate.codes import code_of
from sae_repro.evaluate.concepts import ConceptBank, in_fit
from sae_repro.evaluate.monosemantic import monosemanticity
from sae_repro.params import Cell

D, N, LENGTH = 16, 12_000, 20


def index() -> np.ndarray:
    rows = np.arange(N)
    return np.stack([rows // LENGTH, rows % LENGTH, rows * 0], axis=1).astype(np.int32)


def test_neurons_are_what_stands_out_of_the_mean() -> None:
    x = np.random.default_rng(0).standard_normal((50, D)).astype(np.float32)
    mean = np.arange(D, dtype=np.float64)
    a = neurons(mean)(torch.from_numpy(x)).numpy()
    assert a[:, :D] == pytest.approx(np.maximum(x - mean, 0), abs=1e-6)
    assert a[:, D:] == pytest.approx(np.maximum(mean - x, 0), abs=1e-6)


def test_principal_directions_are_those_of_the_covariance() -> None:
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((4000, D)) * np.arange(D, 0, -1) + 3).astype(np.float32)
    turn, _ = np.linalg.qr(rng.standard_normal((D, D)))
    x = torch.from_numpy((x @ turn).astype(np.float32))
    whole, cut = principal([x], D), principal(x.split(7), D)
    assert torch.equal(whole(x), cut(x)) or torch.allclose(whole(x), cut(x), atol=1e-4)
    a = whole(x)
    along = (a[:, :D] - a[:, D:]).double().numpy()
    covariance = np.cov(along.T)
    assert np.diag(covariance) == pytest.approx(
        np.linalg.eigvalsh(np.cov(x.double().numpy().T))[::-1], rel=1e-3
    )
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-2
    assert (a >= 0).all()
    assert (a[:, :D] * a[:, D:] == 0).all()


@pytest.mark.parametrize(
    "choices",
    [
        {"penalty": "l1", "lambda": 1e-2},
        {"activation": "topk", "k": 3},
        {"activation": "batchtopk", "k": 3, "b_dec_init": "mean"},
        {"activation": "jumprelu", "penalty": "l0", "lambda": 1e-3},
        {"activation": "gated", "penalty": "l1", "lambda": 1e-2},
    ],
    ids=lambda c: str(c.get("activation", "relu")),
)
def test_an_untrained_sae_is_the_cells_and_seeded(choices: dict[str, Any]) -> None:
    cell = Cell.model_validate({"expansion": 4, **choices})
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((500, D)).astype(np.float32))
    a, b, other = (untrained(cell, x, seed).encode(x) for seed in (0, 0, 1))
    assert a.shape == (500, 4 * D)
    assert torch.equal(a, b)
    assert not torch.equal(a, other)
    if cell.k is not None:
        assert float((a > 0).sum(1).double().mean()) == pytest.approx(cell.k, abs=0.1)


def test_a_basis_that_is_the_concepts_beats_every_turned_one() -> None:
    """Directions are concepts in the first, mixtures of all in the others."""
    rng = np.random.default_rng(0)
    labels = rng.random((N, D)) < 0.1
    x = (labels * rng.uniform(1, 2, labels.shape)).astype(np.float32)
    turn, _ = np.linalg.qr(rng.standard_normal((D, D)))
    rows = index()
    bank = ConceptBank(
        names=tuple(f"c{i}" for i in range(D)),
        kinds=("class",) * D,
        labels=csc_array(labels),
        document=rows[:, 0].astype(np.int64),
        position=rows[:, 1].astype(np.int64),
        token=np.zeros(N, dtype=np.int64),
        fit=in_fit(0, rows[:, 0]),
        left_out={},
    )

    def scored(latents: Latents, x: np.ndarray) -> pd.DataFrame:
        a = latents(torch.from_numpy(x))
        fired = (a > 0).sum(0).numpy()
        return monosemanticity(lambda: [code_of(a, rows)], bank, 0, fired)

    turned = (x @ turn).astype(np.float32)
    aligned = scored(neurons(np.zeros(D)), x)
    mixed = scored(neurons(turned.mean(0)), turned)
    axes = scored(principal([torch.from_numpy(turned[bank.fit])], D), turned)
    assert (aligned["class"][:D] == "monosemantic-complete").all()
    assert (aligned["class"][D:] == "dead").all()
    for frame in (mixed, axes):
        assert (frame["M"] < 0.7).all()
        assert frame["M"].mean() < 0.4
