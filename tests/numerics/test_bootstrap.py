"""Bootstrap intervals: seeded, of the right width, of ratios and not of means of ratios."""

import numpy as np
import pytest

from sae_repro.numerics.bootstrap import mean_interval, ratio_interval


def test_the_interval_of_a_mean_has_the_normal_width() -> None:
    values = np.random.default_rng(0).standard_normal(400) + 3
    low, high = mean_interval(values, 0, "x")
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)


def test_it_is_drawn_from_seed_and_name_alone() -> None:
    values = np.arange(30.0)
    assert mean_interval(values, 0, "x") == mean_interval(values, 0, "x")
    assert mean_interval(values, 0, "x") != mean_interval(values, 1, "x")
    assert mean_interval(values, 0, "x") != mean_interval(values, 0, "y")


def test_clusters_weigh_what_they_hold() -> None:
    """Ten units with one measurement of 0, one with 90 of 1: .9, and seldom without the large."""
    sums, sizes = np.array([0.0] * 10 + [90.0]), np.array([1] * 10 + [90])
    low, high = ratio_interval(sums, sizes, 0, "x")
    assert low == 0.0
    assert high > 0.95
