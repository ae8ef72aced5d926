"""Holm's correction and p-values against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_repro.numerics.multiplicity import holm
from sae_repro.numerics.seeds import Seeds, half_width, p_value, parts


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
