"""Wilson's interval."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from sae_repro.intervals import wilson


@given(st.integers(0, 500), st.integers(1, 500))
def test_as_statsmodels_computes_it(successes: int, n: int) -> None:
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


def test_nothing_measured_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
