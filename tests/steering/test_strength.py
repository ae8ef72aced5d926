"""The strength of a given KL: found where there is one, within 1 % of what is asked for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_repro.steering import strength_at


@given(
    scale=st.floats(0.01, 10),
    power=st.floats(1, 4),
    most=st.floats(0.5, 5),
    offset=st.floats(0, 0.2),
    start=st.floats(0.1, 10),
)
def test_a_kl_that_is_reached_is_met(
    scale: float, power: float, most: float, offset: float, start: float
) -> None:
    def kl(s: float) -> float:
        """Saturates at `most`, and is not 0 at 0, as a clamp is not."""
        return offset + most * (1 - math.exp(-((s * scale) ** power)))

    found = strength_at(kl, 0.3, start=start, limit=10_000)
    assert found is not None
    assert found[1] == kl(found[0]) and abs(found[1] - 0.3) <= 0.01 * 0.3


def test_a_strength_near_the_start_costs_few_passes() -> None:
    asked: list[float] = []

    def kl(s: float) -> float:
        asked.append(s)
        return 0.01 * s * s

    found = strength_at(kl, 4.0, start=5.0, limit=100.0)
    assert found is not None and found[0] == pytest.approx(20, rel=0.01)
    assert len(asked) <= 4


def test_a_kl_that_no_strength_reaches_is_none() -> None:
    assert strength_at(lambda s: min(s, 0.2), 0.3, start=1.0, limit=64.0) is None
