"""Initial weights."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from sae_repro.autoencoders import geometric_median, initial_weights
from sae_repro.params import Cell


@given(st.integers(0, 10_000), st.integers(3, 40))
@settings(max_examples=25, deadline=None)
def test_geometric_median_minimises_the_sum_of_distances(seed: int, n: int) -> None:
    x = np.random.default_rng(seed).standard_normal((n, 3))

    def distance(y: np.ndarray) -> float:
        return float(np.linalg.norm(x - y, axis=1).sum())

    ours = distance(geometric_median(torch.from_numpy(x)).numpy())
    best = min(
        minimize(distance, x.mean(0), method="Nelder-Mead", options={"maxiter": 4000}).fun,
        *(distance(point) for point in x),
    )
    assert ours <= best * (1 + 1e-4)


def test_geometric_median_on_a_data_point() -> None:
    """The mean falls on a point: a plain Weiszfeld step would divide by zero there."""
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert torch.equal(geometric_median(x), torch.zeros(2, dtype=torch.float64))
    # three points in one place outweigh the pull of the others, whose mean lies there too
    held = torch.tensor([[0.0, 0.0]] * 3 + [[2.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert torch.equal(geometric_median(held), torch.zeros(2, dtype=torch.float64))
    same = torch.ones(4, 3)
    assert torch.equal(geometric_median(same), torch.ones(3, dtype=torch.float64))


def test_geometric_median_is_robust_to_an_outlier() -> None:
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[0] = 1e6
    assert geometric_median(x).norm() < 0.5
    assert x.mean(0).norm() > 1000


def test_initial_weights_are_tied_unit_and_seeded() -> None:
    cell = Cell(expansion=4, penalty="l1", lambda_=1.0)
    sample = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    first, again, other = (
        initial_weights(cell, 8, sample, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.W_enc, first.W_dec.T)
    torch.testing.assert_close(first.W_dec.norm(dim=1), torch.ones(32))
    assert torch.equal(first.W_dec, again.W_dec)
    assert not torch.equal(first.W_dec, other.W_dec)
    free = initial_weights(
        Cell(
            expansion=4, penalty="l1_decoder_norm", lambda_=1.0, decoder="free", b_dec_init="zero"
        ),
        8,
        sample,
        np.random.default_rng(1),
    )
    torch.testing.assert_close(free.W_dec.norm(dim=1), torch.full((32,), 0.1))
    assert not free.b_dec.any()
