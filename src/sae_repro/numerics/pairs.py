"""Pairs of seeds, and means over them whose intervals know that pairs share seeds."""

import math
from collections.abc import Mapping
from itertools import permutations

import numpy as np

LEAST_SEEDS = 3
"""Two seeds have one pair, which says nothing of how far another would be off."""


def seed_pairs(reference: Mapping[int, str], sae: Mapping[int, str]) -> list[tuple[int, int]]:
    """(i, j), i ≠ j, of the seeds that two cells share, given as SAEs' names by seed.

    Seed i of both is one unit of the jackknife, so that no pair lies within a unit. Where they
    share fewer than two seeds it is one pair, of two SAEs; none where there is but one SAE.
    """
    common = sorted(reference.keys() & sae.keys())
    if len(common) > 1:
        return list(permutations(common, 2))
    pairs = [(i, j) for i in reference for j in sae if reference[i] != sae[j]]
    return sorted(pairs, key=lambda pair: (pair[0] == pair[1], pair))[:1]


def jackknife(values: Mapping[tuple[int, int], float]) -> tuple[float, float, float]:
    """(mean, low, high) of a value per pair of seeds; NaN bounds of fewer than 3 seeds.

    The standard error is the jackknife's over seeds: each is left out with all of its pairs. It is
    right for what a seed does to all its pairs, and too large for what only one pair has. The
    interval is 95 % of Student's t with (seeds − 1) degrees of freedom. Source: Arvesen 1969,
    "Jackknifing U-statistics".
    """
    if not values:
        return math.nan, math.nan, math.nan
    mean = float(np.mean([*values.values()]))
    seeds = sorted({seed for pair in values for seed in pair})
    s = len(seeds)
    if s < LEAST_SEEDS:
        return mean, math.nan, math.nan
    without = [np.mean([v for pair, v in values.items() if seed not in pair]) for seed in seeds]
    variance = (s - 1) / s * float(np.square(np.array(without) - np.mean(without)).sum())
    half = _t(s - 1) * math.sqrt(variance)
    return mean, mean - half, mean + half


def further(draws: list[float]) -> tuple[float, float, float]:
    """(mean, low, high): where one more independent draw lies in 95 %; NaN bounds of one draw."""
    n = len(draws)
    if not n:
        return math.nan, math.nan, math.nan
    mean = float(np.mean(draws))
    if n == 1:
        return mean, math.nan, math.nan
    half = _t(n - 1) * float(np.std(draws, ddof=1)) * math.sqrt(1 + 1 / n)
    return mean, mean - half, mean + half


def _t(freedom: int) -> float:
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return float(stdtrit(freedom, 0.975))
