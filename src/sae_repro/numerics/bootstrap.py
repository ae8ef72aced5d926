"""Bootstrap intervals for what is measured unit by unit: per latent, per reference latent."""

from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.numerics.random import generator

RESAMPLINGS = 1000


def bootstrap_ratio(
    numerator: npt.NDArray[Any], denominator: npt.NDArray[Any], seed: int, *name: int | str
) -> list[float]:
    """95 % percentile interval of Σ numerator / Σ denominator over resampled units.

    Both [n], n ≥ 1, one entry per unit, every denominator > 0; `name` names the draw. Units with
    several measurements are clusters: give their sum and their number.
    """
    rng, n = generator(seed, "structure", *name), len(numerator)
    ratios = np.empty(RESAMPLINGS)
    for i in range(RESAMPLINGS):
        drawn = rng.integers(n, size=n)
        ratios[i] = numerator[drawn].sum() / denominator[drawn].sum()
    return [float(bound) for bound in np.quantile(ratios, [0.025, 0.975])]


def bootstrap_mean(values: npt.NDArray[Any], seed: int, *name: int | str) -> list[float]:
    """95 % percentile interval of the mean of `values` [n] over resampled units."""
    return bootstrap_ratio(values, np.ones(len(values)), seed, *name)
