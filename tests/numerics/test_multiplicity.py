"""p-values from intervals, and the false discoveries among many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sae_repro.numerics.intervals import student
from sae_repro.numerics.multiplicity import benjamini_hochberg, p_above_zero


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
