"""p-values from intervals, and corrections for many tests, against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sae_repro.numerics.intervals import student
from sae_repro.numerics.multiplicity import benjamini_hochberg, holm, p_above_zero
from sae_repro.numerics.seeds import Seeds, half_width, p_value, parts


@given(st.lists(st.floats(-1, 3), min_size=2, max_size=8, unique=True))
def test_p_is_that_of_the_t_test_where_the_interval_excludes_zero(values: list[float]) -> None:
    mean, low, high = student(values)
    p = p_above_zero(mean, (low, high), len(values))
    expected = stats.ttest_1samp(values, 0.0).pvalue
    assert p == (pytest.approx(expected, rel=1e-6, abs=1e-12) if low > 0 else 1.0)


def test_p_of_a_normal_interval_and_of_none() -> None:
    assert p_above_zero(3.0, (3.0 - 1.959963984540054, 5.0)) == pytest.approx(
        2 * stats.norm.sf(3.0)
    )
    assert p_above_zero(0.0, (0.0, 0.0)) == p_above_zero(-1.0, (-2.0, 0.1)) == 1.0
    assert p_above_zero(1.0, (float("nan"), float("nan"))) == 1.0
    assert p_above_zero(1.0, (1.0, 1.0), 3) == 0.0


@given(st.lists(st.floats(0, 1), max_size=30))
def test_discoveries_are_those_of_scipy(p: list[float]) -> None:
    holds = benjamini_hochberg(p)
    adjusted = stats.false_discovery_control(p) if p else np.zeros(0)
    near = np.abs(adjusted - 0.05) < 1e-9
    assert np.array_equal(holds | near, (adjusted <= 0.05) | near)


def test_a_later_discovery_brings_those_before_it_along() -> None:
    """It is a step-up procedure: 0.04 alone is above 0.05 / 2."""
    assert benjamini_hochberg([0.04, 0.045]).tolist() == [True, True]
    assert benjamini_hochberg([0.04, 0.055]).tolist() == [False, False]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.3))
def test_rejected_are_those_of_the_step_down_procedure(p: list[float], level: float) -> None:
    """Holm 1979: the smallest against level / n, the next against level / (n − 1), to a failure."""
    adjusted = holm(dict(enumerate(p)))
    rejected: set[int] = set()
    for n, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] * (len(p) - n) > level:
            break
        rejected.add(i)
    assert {i for i, value in adjusted.items() if value <= level} == rejected


def test_what_cannot_be_compared_is_no_comparison() -> None:
    adjusted = holm({"a": 0.02, "b": float("nan"), "c": 0.03})
    assert adjusted["a"] == pytest.approx(0.04) and adjusted["c"] == pytest.approx(0.04)
    assert np.isnan(adjusted["b"])


@given(st.integers(0, 10_000), st.floats(0.0, 4.0), st.floats(0.0, 1.0))
def test_p_is_below_5_percent_where_the_interval_leaves_out_0(
    seed: int, distance: float, error: float
) -> None:
    rng = np.random.default_rng(seed)
    documents = rng.normal(size=(40, 1))
    a, b = (
        Seeds(values := rng.normal(at, 0.3, n), documents + values + rng.normal(size=(40, n)) / 9)
        for at, n in ((0.0, 3), (distance, 2))
    )
    difference = float(a.values.mean() - b.values.mean())
    half = float(np.hypot(half_width(a, b, documents=40), error))
    p = p_value(difference, *parts(a, b, documents=40), error=error)
    assert (p < 0.05) == (half < abs(difference))
