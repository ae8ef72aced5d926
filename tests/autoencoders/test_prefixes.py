"""The lengths of Matryoshka's prefixes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.autoencoders import prefix_lengths
from sae_repro.autoencoders.prefixes import prefix_weights
from sae_repro.params import Cell

RANDOM = Cell(expansion=1, activation="topk", k=1, prefixes="random")


@given(st.integers(2, 300), st.integers(2, 20), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_random_lengths_rise_to_the_full_width(width: int, n: int, seed: int) -> None:
    cell = RANDOM.model_copy(update={"n_prefixes": n})
    lengths = prefix_lengths(cell, width, np.random.default_rng(seed))
    assert lengths == sorted(set(lengths))
    assert lengths[0] >= 1
    assert lengths[-1] == width
    assert len(lengths) == min(n, width)


def test_random_lengths_follow_the_truncated_pareto() -> None:
    """P(l ≤ 32 of 1,024) is .853 for one draw, .76 for nine without replacement (α = .5)."""
    rng = np.random.default_rng(0)
    one = [prefix_lengths(RANDOM.model_copy(update={"n_prefixes": 2}), 1024, rng)[0]
           for _ in range(4000)]  # fmt: skip
    assert np.mean(np.array(one) <= 32) == pytest.approx(0.853, abs=0.02)
    nine = np.concatenate([prefix_lengths(RANDOM, 1024, rng)[:-1] for _ in range(2000)])
    assert np.mean(nine <= 32) == pytest.approx(0.76, abs=0.02)


def test_fixed_lengths_are_running_sums_of_fractions() -> None:
    cell = Cell(expansion=1, activation="topk", k=1, prefixes="fixed")
    assert prefix_lengths(cell, 64, np.random.default_rng(0)) == [4, 8, 16, 32, 64]


def test_weights_have_mean_one_and_those_of_lengths_that_fall_together_join() -> None:
    cell = Cell(
        expansion=1, activation="topk", k=1, prefixes="fixed",
        prefix_shares=[0.25, 0.125, 0.625], prefix_weights=[1, 2, 3],
    )  # fmt: skip
    # at 2 the ends are .5 → 0, .75 → 1 and 2: no prefix is left for the first weight
    for width, joined in ((8, [1, 2, 3]), (2, [2, 3])):
        lengths = prefix_lengths(cell, width, np.random.default_rng(0))
        weight = prefix_weights(cell, width)
        assert weight is not None
        assert len(lengths) == len(weight)
        assert weight == pytest.approx(np.array(joined) / np.mean(joined))


def test_hierarchical_lengths_are_counts_of_latents() -> None:
    cell = Cell(expansion=1, activation="topk", k=4, prefixes="hierarchical")
    assert prefix_lengths(cell, 64, np.random.default_rng(0)) == [1, 2, 3, 4]
    chosen = cell.model_copy(update={"prefix_k": (1, 4)})
    assert prefix_lengths(chosen, 64, np.random.default_rng(0)) == [1, 4]


def test_no_prefixes_are_the_whole_code() -> None:
    cell = Cell(expansion=1, activation="topk", k=1)
    assert prefix_lengths(cell, 64, np.random.default_rng(0)) == [64]
