"""Intervals over pairs of seeds: wide enough for what pairs share."""

from itertools import combinations

import numpy as np
import pytest

from sae_repro.numerics.pairs import further, jackknife


def test_three_seeds_have_the_jackknifes_interval() -> None:
    values = {(0, 1): 0.1, (0, 2): 0.2, (1, 2): 0.6}
    mean, low, high = jackknife(values)
    # without a seed one pair is left: its standard error is √(2/3 · Σ(v − mean)²)
    half = 4.302652729911275 * np.sqrt(2 / 3 * np.square(np.array([0.1, 0.2, 0.6]) - 0.3).sum())
    assert (mean, low, high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))


def test_two_seeds_have_no_interval() -> None:
    assert jackknife({(0, 1): 0.5})[0] == 0.5
    assert np.isnan(jackknife({(0, 1): 0.5})[1:]).all()
    assert np.isnan(jackknife({})).all()


@pytest.mark.parametrize("seeds", [3, 5])
def test_what_a_seed_does_to_all_its_pairs_is_in_the_interval(seeds: int) -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        own = rng.standard_normal(seeds)
        _, low, high = jackknife(
            {(i, j): own[i] + own[j] for i, j in combinations(range(seeds), 2)}
        )
        held += low <= 0 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_a_further_draw_lies_in_its_interval() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        *draws, one = rng.standard_normal(11).tolist()
        _, low, high = further(draws)
        held += low <= one <= high
    assert 0.92 <= held / 400 <= 0.98
    assert np.isnan(further([0.5])[1:]).all() and np.isnan(further([])).all()
