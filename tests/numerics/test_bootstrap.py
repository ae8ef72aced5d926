"""The bootstrap: seeded weights, paired by name, intervals of the width that theory gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.numerics.bootstrap import (
    BLOCK,
    RESAMPLINGS,
    interval,
    mean_interval,
    ratio_interval,
    sums,
    weights,
)


@given(st.integers(1, 50), st.integers(1, 3 * BLOCK), st.integers(0, 2**40))
@settings(max_examples=30, deadline=None)
def test_each_resampling_draws_as_many_units_as_there_are(n: int, b: int, seed: int) -> None:
    drawn = np.concatenate(list(weights(n, seed, "x", resamplings=b)))
    assert drawn.shape == (b, n)
    assert (drawn.sum(axis=1) == n).all()
    assert (drawn >= 0).all() and (drawn == np.rint(drawn)).all()


@pytest.mark.parametrize("n", [20, 300])
def test_weights_are_those_of_draws_with_replacement(n: int) -> None:
    """Mean 1, variance 1 − 1/n, covariance −1/n."""
    drawn = np.concatenate(list(weights(n, 0, "x", resamplings=20_000)))
    covariance = np.cov(drawn.T)
    assert drawn.mean(axis=0) == pytest.approx(np.ones(n), abs=0.04)
    assert covariance == pytest.approx(np.eye(n) - 1 / n, abs=0.06)


def test_a_draw_follows_from_seed_and_name_alone() -> None:
    values = np.arange(30.0)
    assert mean_interval(values, 0, "x") == mean_interval(values, 0, "x")
    assert mean_interval(values, 0, "x") != mean_interval(values, 1, "x")
    assert mean_interval(values, 0, "x") != mean_interval(values, 0, "y")


def test_statistics_of_one_name_are_paired() -> None:
    """Their difference is known as well as if it had been resampled itself."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal(60)
    b = a + 0.01 * rng.standard_normal(60)
    difference = sums(a, 0, "x") - sums(b, 0, "x")
    assert difference == pytest.approx(sums(a - b, 0, "x"))
    assert difference.std() < 0.05 * (sums(a, 0, "x") - sums(b, 0, "y")).std()


def test_sums_have_a_row_per_resampling_and_keep_the_values_shape() -> None:
    values = np.random.default_rng(0).standard_normal((12, 3, 2))
    drawn = np.concatenate(list(weights(12, 4, "x")))
    assert sums(values, 4, "x").shape == (RESAMPLINGS, 3, 2)
    assert sums(values, 4, "x") == pytest.approx(np.einsum("bn,nij->bij", drawn, values))


def test_the_interval_of_a_mean_has_the_normal_width() -> None:
    values = np.random.default_rng(0).standard_normal(400) + 3
    low, high = mean_interval(values, 0, "x")
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)


def test_the_interval_of_a_ratio_has_the_width_of_the_delta_method() -> None:
    rng = np.random.default_rng(0)
    size = rng.integers(1, 40, 500)
    part = size * 0.3 + rng.standard_normal(500) * np.sqrt(size)
    ratio = part.sum() / size.sum()
    low, high = ratio_interval(part, size, 0, "x")
    error = np.sqrt(np.square(part - ratio * size).sum()) / size.sum()
    assert low < ratio < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_clusters_widen_the_interval_by_what_they_share() -> None:
    """Ten equal measurements of each of 40 units are 40 measurements: √10 times as wide."""
    unit = np.repeat(np.arange(40), 10)
    values = np.random.default_rng(0).standard_normal(40)[unit]
    alone = np.ptp(mean_interval(values, 0, "x"))
    clustered = np.ptp(mean_interval(values, 0, "x", cluster=unit))
    assert clustered / alone == pytest.approx(np.sqrt(10), rel=0.2)
    assert mean_interval(values[::10], 0, "x") == pytest.approx(
        mean_interval(values, 0, "x", cluster=unit)
    )


def test_an_interval_needs_the_least_part_of_the_resamplings() -> None:
    statistics = np.arange(20.0)
    statistics[0] = np.nan
    assert interval(statistics, least=0.95) is not None
    statistics[1] = np.inf
    assert interval(statistics, least=0.95) is None
    assert interval(np.full(20, np.nan)) is None


def test_clusters_weigh_what_they_hold() -> None:
    """Ten units with one measurement of 0, one with 90 of 1: .9, and seldom without the large."""
    totals, sizes = np.array([0.0] * 10 + [90.0]), np.array([1] * 10 + [90])
    low, high = ratio_interval(totals, sizes, 0, "x")
    assert low == 0.0
    assert high > 0.95


def test_resamplings_without_the_statistic_are_left_out_until_too_few_have_it() -> None:
    statistics = np.r_[np.arange(101.0), np.full(99, np.nan)]
    assert interval(statistics) == pytest.approx([2.5, 97.5])
    assert interval(statistics, least=0.5) == interval(statistics)
    assert interval(statistics, least=0.51) is None
    assert interval(np.full(10, np.nan)) is None
    assert interval(np.array([np.inf, 1.0, 1.0])) == [1.0, 1.0]


def test_a_ratio_without_any_denominator_is_refused() -> None:
    with pytest.raises(ValueError, match="no denominator is > 0"):
        ratio_interval(np.ones(5), np.zeros(5), 0, "x")


def test_intervals_hold_the_mean_as_often_as_they_should() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for i in range(200):
        low, high = mean_interval(rng.exponential(size=80), i, "x")
        held += low <= 1 <= high
    assert held / 200 > 0.89
