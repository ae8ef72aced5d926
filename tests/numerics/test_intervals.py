"""Intervals against other libraries and by simulation, and differences of two of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from sae_repro.numerics.intervals import (
    differ,
    student,
    student_fraction,
    wilson,
    wilson_over_groups,
)


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_equals_statsmodels(successes: int, n: int) -> None:
    successes = min(successes, n)
    low, high = wilson(successes, n)
    theirs = proportion_confint(successes, n, method="wilson")
    assert low == pytest.approx(theirs[0], abs=1e-12)
    assert high == pytest.approx(theirs[1], abs=1e-12)
    assert 0 <= low <= successes / n <= high <= 1


def test_the_published_judges_interval() -> None:
    """50 latents at 80 %: [67, 89]."""
    low, high = wilson(40, 50)
    assert (round(100 * low), round(100 * high)) == (67, 89)


def test_without_draws_the_interval_of_a_fraction_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.lists(st.tuples(st.integers(0, 80), st.integers(1, 80)), min_size=1, max_size=6))
def test_groups_never_make_an_interval_narrower(pairs: list[tuple[int, int]]) -> None:
    successes, totals = [min(x, n) for x, n in pairs], [n for _, n in pairs]
    low, high = wilson_over_groups(successes, totals)
    one = wilson(sum(successes), sum(totals))
    assert 0 <= low <= one[0] + 1e-12 and one[1] - 1e-12 <= high <= 1
    assert low - 1e-12 <= sum(successes) / sum(totals) <= high + 1e-12


def test_groups_that_agree_are_one_sample_and_groups_that_do_not_are_few() -> None:
    assert wilson_over_groups([10, 10, 10], [100] * 3) == pytest.approx(wilson(30, 300))
    assert wilson_over_groups([0, 0], [50, 50]) == wilson(0, 100)
    assert wilson_over_groups([50, 50], [50, 50])[1] == 1.0
    # all or nothing: three groups are three draws; between = 3/2 · 2/3 / 9, independent 2/9 / 300
    apart = wilson_over_groups([100, 0, 0], [100] * 3)
    assert apart == pytest.approx(proportion_confint(1 / 1.5, 3 / 1.5, method="wilson"), abs=0.01)


def test_intervals_over_seeds_hold_the_truth_as_often_as_they_should() -> None:
    """Latents of a seed share its luck: pooled without regard to seeds, far fewer would hold it."""
    rng = np.random.default_rng(0)
    p, k, seeds = 0.2, 200, 12
    held = naive = 0
    for _ in range(400):
        successes = rng.binomial(k, rng.beta(p * 30, (1 - p) * 30, seeds)).tolist()
        low, high = wilson_over_groups(successes, [k] * seeds)
        held += low <= p <= high
        low, high = wilson(sum(successes), k * seeds)
        naive += low <= p <= high
    assert held / 400 > 0.9
    assert naive / 400 < 0.75


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9))
@settings(deadline=None)  # the first call imports scipy
def test_students_interval_is_scipys(values: list[float]) -> None:
    mean, low, high = student(values)
    assert mean == pytest.approx(np.mean(values), abs=1e-9)
    if np.std(values) > 1e-6:
        theirs = stats.ttest_1samp(values, 0).confidence_interval()
        assert (low, high) == pytest.approx((theirs.low, theirs.high), rel=1e-6, abs=1e-9)


def test_one_value_has_no_interval() -> None:
    assert math.isnan(student([])[0])
    assert student([0.5])[0] == 0.5 and all(map(math.isnan, student([0.5])[1:]))


def test_only_intervals_without_a_common_point_differ() -> None:
    assert differ((0, 1), (1.1, 2)) and differ((1.1, 2), (0, 1))
    assert not differ((0, 1), (1, 2))
    assert not differ((0, 3), (1, 2))
    assert not differ((0, 1), (math.nan, math.nan))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
@settings(deadline=None)  # the first call imports scipy
def test_an_interval_of_fractions_stays_in_range_and_holds_the_mean(values: list[float]) -> None:
    mean, low, high = student_fraction(values)
    assert mean == pytest.approx(np.mean(values))
    assert 0 <= low <= mean <= high <= 1


def test_near_one_half_an_interval_of_fractions_is_students() -> None:
    values = (0.5 + 1e-4 * np.array([-1.0, 0.3, 0.9, -0.6])).tolist()
    assert student_fraction(values)[1:] == pytest.approx(student(values)[1:], abs=1e-9)


def test_at_the_edges_students_interval_leaves_the_range_and_that_of_fractions_does_not() -> None:
    values = [0.0, 0.0, 0.86]
    assert student(values)[1] < 0 and student(values)[2] > 1
    _, low, high = student_fraction(values)
    assert 0 <= low < high <= 1
    assert student_fraction([1.0, 1.0])[1:] == (1.0, 1.0)
    above = float(np.nextafter(1.0, 2.0))  # a ratio of sums, rounded
    assert all(map(math.isfinite, student_fraction([1.0, above])))
    assert all(map(math.isfinite, student_fraction([0.0, -5e-324])))


def test_one_fraction_has_no_interval() -> None:
    assert math.isnan(student_fraction([])[0])
    assert student_fraction([0.5])[0] == 0.5 and all(map(math.isnan, student_fraction([0.5])[1:]))


@pytest.mark.parametrize("p", [0.05, 0.5, 0.93])
def test_intervals_of_fractions_hold_the_truth_as_often_as_they_should(p: float) -> None:
    """Of seeds that differ, as dead latents do: a beta between seeds, a binomial within."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(600):
        rates = rng.binomial(400, rng.beta(60 * p, 60 * (1 - p), 5)) / 400
        _, low, high = student_fraction(rates.tolist())
        held += low <= p <= high
    assert 0.92 < held / 600 < 0.98


@given(st.integers(1, 3000))
@settings(deadline=None)
def test_none_and_all_are_exact_bounds(n: int) -> None:
    assert wilson(0, n)[0] == 0.0 and wilson(n, n)[1] == 1.0
    assert wilson_over_groups([0, 0], [n, n])[0] == 0.0
