"""Firing and reconstruction: exact values, and independence of batches and shards."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sae_repro.autoencoders import SAE, Weights
from sae_repro.evaluate.held_out import Batch, HeldOut, unseen_key, validation_batches
from sae_repro.evaluate.reconstruction import Totals, accumulate, summarise
from sae_repro.files import sha256_file
from sae_repro.readers.shards import SEEN, ActivationStore, row_key

HOOK = "blocks.0.hook_resid_post"
D, K = 4, 9


def integer_sae(seed: int = 0) -> SAE:
    """Small whole numbers: fp32 products are exact, so that equality can be, too."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.integers(-2, 3, shape).astype(np.float32))

    return SAE("standard", Weights(draw(D, K), draw(K) - 2, draw(K, D), draw(D)))


def integer_activations(n: int = 400, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3, 4, (n, D)).astype(np.float32)


UNSEEN = np.sort(np.random.default_rng(3).permutation(500)[:230])
"""Rows whose prefix no training row has."""


def run(sae: SAE, x: np.ndarray, size: int, order: np.ndarray | None = None) -> Totals:
    """Totals over x in batches of `size`, rows in `order`; 20 tokens a document."""
    rows = np.arange(len(x)) if order is None else order
    index = np.stack([rows // 20, rows % 20, rows * 0], axis=1).astype(np.int32)

    def batches() -> Iterator[Batch]:
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            yield torch.from_numpy(x[rows[part]]), index[part]

    return accumulate(sae, batches(), HeldOut.of(batches, D, row_key(UNSEEN // 20, UNSEEN % 20)))


@given(st.integers(1, 500), st.integers(0, 100), st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_no_metric_depends_on_batches_or_order(size: int, seed: int, n: int) -> None:
    x = integer_activations(n)
    whole = summarise(run(integer_sae(), x, n), D, 0.07)
    order = np.random.default_rng(seed).permutation(n)
    totals = run(integer_sae(), x, size, order)
    cut = summarise(totals, D, 0.07)
    assert cut.keys() == whole.keys()
    for name, value in whole.items():
        same = value is None or pytest.approx(value, rel=1e-12, abs=1e-12)
        assert cut[name] == same or (cut[name] is None and value is None), name
    columns = run(integer_sae(), x, n).by_document()
    for name, column in totals.by_document().items():
        assert column == pytest.approx(columns[name], rel=1e-12, abs=1e-12), name


def test_metrics_equal_the_definitions() -> None:
    x, sae = integer_activations(), integer_sae()
    t = run(sae, x, 64)
    m = summarise(t, D, dead_threshold=3.0)
    x = x.astype(np.float64)
    w = {name: tensor.numpy().astype(np.float64) for name, tensor in sae.weights.named().items()}
    z = np.maximum((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 0)
    x_hat = z @ w["W_dec"] + w["b_dec"]
    error = x - x_hat
    norms = np.linalg.norm(x, axis=1), np.linalg.norm(x_hat, axis=1)
    usable, unseen = (norms[0] > 0) & (norms[1] > 0), UNSEEN[len(x) > UNSEEN]
    cosine = ((x * x_hat).sum(1)[usable]) / (norms[0] * norms[1])[usable]
    expected = {
        "l0": (z > 0).sum(1).mean(),
        "dead_fraction_never": ((z > 0).sum(0) == 0).mean(),
        "dead_fraction_below": (z.max(0) < 3.0).mean(),
        "dead_fraction_below_relative": (z.max(0) < 1e-3 * np.sqrt((norms[0] ** 2).mean())).mean(),
        "density_mean": (z > 0).mean(),
        "density_median": np.median((z > 0).mean(0)),
        "density_max": (z > 0).mean(0).max(),
        "fvu": (error**2).sum() / ((x - x.mean(0)) ** 2).sum(),
        "fvu_unseen": (error[unseen] ** 2).sum() / ((x - x.mean(0))[unseen] ** 2).sum(),
        "explained_variance": 1 - (error**2).sum() / ((x - x.mean(0)) ** 2).sum(),
        "squared_error_per_token": (error**2).sum(1).mean(),
        "mse_per_dim": (error**2).mean(),
        "mae_per_dim": np.abs(error).mean(),
        "cosine": cosine.mean(),
        "cosine_spread": cosine.std(),
        "relative_norm": norms[1].sum() / norms[0].sum(),
    }
    assert m.keys() == expected.keys()
    for name, value in expected.items():
        assert m[name] == pytest.approx(value, rel=1e-9), name
    assert t.zero_norm == int((~usable).sum())
    assert t.held_out.unseen_tokens.sum() == len(unseen)
    assert t.held_out.tokens.sum() == t.tokens == len(x)
    assert t.document_error.sum() == pytest.approx((error**2).sum())
    assert t.document_l0.sum() == (z > 0).sum()


def test_predicting_the_mean_has_an_fvu_of_exactly_one() -> None:
    """Uncentred, or with a mean per batch, it would be something else."""
    x = integer_activations(256) + 50.0
    mean = torch.from_numpy(x.astype(np.float64).mean(0))
    zero = (torch.zeros(s, dtype=torch.float64) for s in ((D, K), (K,), (K, D)))
    t = run(SAE("standard", Weights(*zero, mean)), x.astype(np.float64), 37)
    assert summarise(t, D, 0.07)["fvu"] == 1.0


def test_a_perfect_reconstruction_has_an_fvu_of_zero() -> None:
    identity = torch.cat([torch.eye(D), -torch.eye(D)], dim=1)
    sae = SAE("standard", Weights(identity, torch.zeros(2 * D), identity.T, torch.zeros(D)))
    m = summarise(run(sae, integer_activations(), 33), D, 0.07)
    assert m["fvu"] == 0.0
    assert m["cosine"] == pytest.approx(1.0)
    assert m["relative_norm"] == pytest.approx(1.0)


@given(st.integers(1, 700), st.integers(50, 900))
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_shards_make_no_difference(
    make_store: Callable[..., Path], size: int, shard_rows: int
) -> None:
    x, sae = integer_activations(900), integer_sae()
    folder = make_store(validation=x, d_in=D, shard_rows=shard_rows, name=f"e{size}-{shard_rows}")
    np.save(folder / SEEN, ~np.isin(np.arange(900), UNSEEN))
    store = ActivationStore(folder)
    store.manifest["seen"] = sha256_file(folder / SEEN)

    def batches() -> Iterator[Batch]:
        return validation_batches(store, HOOK, size, "cpu")

    totals = accumulate(sae, batches(), HeldOut.of(batches, D, unseen_key(store)))
    assert totals.tokens == totals.held_out.tokens.sum() == 900
    cut = summarise(totals, D, 0.07)
    whole = summarise(run(sae, x, 900), D, 0.07)
    assert cut == pytest.approx(whole, rel=1e-12)


def test_offset_is_the_mean_in_units_of_the_spread() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((60, D)) + 2).astype(np.float32)
    index = np.array([[row // 7, row, 0] for row in range(60)], dtype=np.int32)

    def batches() -> list[Batch]:
        return [(torch.from_numpy(x[at : at + 25]), index[at : at + 25]) for at in (0, 25, 50)]

    wide = x.astype(np.float64)
    expected = np.linalg.norm(wide.mean(0)) / np.linalg.norm(wide.std(0))
    assert HeldOut.of(batches, D).offset == pytest.approx(expected)
    x[:] = 3
    assert HeldOut.of(batches, D).offset is None
