"""Each activation against its definition, written out densely."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.autoencoders import Weights, batch_top_k, batchtopk_threshold, top_k
from sae_repro.autoencoders.activations import INFERENCE


def pre_activations(seed: int, n: int = 6, k: int = 10) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_topk_keeps_the_largest_of_each_token(seed: int) -> None:
    u = pre_activations(seed)
    z = top_k(u, 3)
    for row, code in zip(u, z, strict=True):
        kept = sorted(row.tolist(), reverse=True)[:3]
        assert sorted(code[code > 0].tolist(), reverse=True) == [v for v in kept if v > 0]


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_batchtopk_keeps_the_largest_of_the_batch(seed: int) -> None:
    u = pre_activations(seed)
    z = batch_top_k(u, 3)
    kept = sorted(u.flatten().tolist(), reverse=True)[: 3 * len(u)]
    assert sorted(z[z > 0].tolist(), reverse=True) == [v for v in kept if v > 0]


def test_chosen_but_not_positive_does_not_fire() -> None:
    u = torch.tensor([[-3.0, -1.0, -2.0, 4.0]])
    assert top_k(u, 3).tolist() == [[0.0, 0.0, 0.0, 4.0]]


def test_ties_do_not_let_more_than_k_fire() -> None:
    u = torch.ones(4, 10)
    assert (top_k(u, 3) > 0).sum(1).tolist() == [3, 3, 3, 3]
    assert int((batch_top_k(u, 3) > 0).sum()) == 12


def test_selection_weighs_by_the_norm_of_free_rows() -> None:
    u = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    norm = torch.tensor([10.0, 1.0, 1.0, 0.1])
    z = top_k(u, 1, norm)
    assert z.tolist() == [[1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("select", [top_k, batch_top_k])
def test_gradient_is_that_of_the_active_latents(
    select: Callable[[torch.Tensor, int], torch.Tensor],
) -> None:
    u = pre_activations(3).requires_grad_()
    z = select(u, 3)
    (gradient,) = torch.autograd.grad(z.sum(), u)
    assert torch.equal(gradient, (z > 0).double())


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 7))
@settings(max_examples=50, deadline=None)
def test_threshold_lets_k_per_token_through(seed: int, k: int, batch: int) -> None:
    scores = pre_activations(seed, n=20)
    threshold = batchtopk_threshold(scores.split(batch), k, 20)
    positive = int((scores > 0).sum())
    fires = int((scores > threshold).sum())
    assert fires == min(k * 20, positive)
    assert (threshold == 0.0) == (positive <= k * 20)


@given(st.integers(0, 999), st.integers(1, 9), st.sampled_from([12, 40, 160]))
@settings(max_examples=60, deadline=None)
def test_encoding_by_topk_takes_the_first_of_equal_ones(seed: int, k: int, width: int) -> None:
    """With few distinct values, so that many are equal, and with fewer than k positive ones."""
    rng = np.random.default_rng(seed)
    u = rng.integers(-4, 9, (17, width)) if seed % 2 else rng.standard_normal((17, width))
    u = (u - 1.0 * rng.integers(0, 9, (17, 1)) * (rng.random((17, 1)) < 0.3)).astype(np.float32)
    order = np.argsort(-u, axis=1, kind="stable")[:, :k]
    expected = np.zeros_like(u)
    np.put_along_axis(expected, order, np.maximum(np.take_along_axis(u, order, 1), 0), 1)
    identity, nothing = torch.eye(width), torch.zeros(width)
    z = INFERENCE["topk"](
        Weights(identity, nothing, identity, nothing), torch.from_numpy(u), True, k
    )
    assert np.array_equal(z.numpy(), expected)
