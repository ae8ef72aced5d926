"""Rank correlations against scipy, partial ones against regression on ranks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sae_repro.numerics.ranks import partial_spearman, ranks, spearman

numbers = st.lists(st.integers(-5, 5), min_size=3, max_size=20)


@given(numbers)
def test_equal_values_share_the_mean_of_their_ranks(values: list[int]) -> None:
    assert ranks(values).tolist() == stats.rankdata(values).tolist()


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=20))
def test_rank_correlation_is_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = zip(*pairs, strict=True)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(spearman(a, b))
    else:
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


@pytest.mark.parametrize("n_given", [1, 2, 3])
def test_partial_correlation_is_that_of_the_residuals_of_ranks(n_given: int) -> None:
    rng = np.random.default_rng(n_given)
    common = rng.standard_normal((n_given, 40))
    a, b = (common.sum(0) + rng.standard_normal(40) for _ in range(2))
    fixed = np.stack([np.ones(40), *map(stats.rankdata, common)], axis=1)
    residuals = [
        stats.rankdata(v) - fixed @ np.linalg.lstsq(fixed, stats.rankdata(v), rcond=None)[0]
        for v in (a, b)
    ]
    expected = np.corrcoef(*residuals)[0, 1]
    assert partial_spearman(a, b, list(common)) == pytest.approx(expected)
    assert partial_spearman(a, b, list(common)) < spearman(a, b)


def test_nothing_is_left_of_what_the_given_explain() -> None:
    a = [1, 2, 3, 4, 5]
    assert math.isnan(partial_spearman(a, [2, 1, 4, 3, 5], [np.exp(a)]))
