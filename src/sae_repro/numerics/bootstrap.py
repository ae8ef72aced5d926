"""The bootstrap: resampled units as weights, and percentile intervals of statistics.

Source: B. Efron 1979, "Bootstrap methods: another look at the jackknife".
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.numerics.random import generator

Floats = npt.NDArray[np.float64]

RESAMPLINGS = 1000
BLOCK = 64  # resamplings held at once
KEPT = 2**26  # counts kept for the next statistics of the same names; mostly a byte each
ENDS = (0.025, 0.975)
LEAST_UNITS = 5
"""With fewer units the bootstrap draws the same few again and again: one alone has width 0."""


def weights(
    n: int, seed: int, *name: int | str, resamplings: int = RESAMPLINGS
) -> Iterator[Floats]:
    """Counts of the draws of each of n units, block by block: [b, n], whose rows sum to n.

    `name` names the draw: two statistics of one name see the same resamplings, as paired
    differences need it.
    """
    few = n * resamplings <= KEPT
    drawn = _kept_draws(n, seed, name, resamplings) if few else _draws(n, seed, name, resamplings)
    for counts_bn in drawn:
        yield counts_bn.astype(np.float64)


Name = tuple[int | str, ...]
Counts = npt.NDArray[np.integer[Any]]


def _kept_draws(n: int, seed: int, name: Name, resamplings: int) -> list[Counts]:
    """The draws, which the SAEs of a study share: the last ones used, up to `KEPT` counts."""
    key = n, seed, name, resamplings
    blocks = _kept.pop(key, None) or list(_draws(*key))
    _kept[key] = blocks
    while sum(n * resamplings for n, _, _, resamplings in _kept) > KEPT:
        del _kept[next(iter(_kept))]
    return blocks


_kept: dict[tuple[int, int, Name, int], list[Counts]] = {}
"""From the least recently used on."""


def _draws(n: int, seed: int, name: Name, resamplings: int) -> Iterator[Counts]:
    """Blocks of counts, in as few bytes as they need."""
    rng, dtype = generator(seed, *name), np.min_scalar_type(n - 1).type
    for start in range(0, resamplings, BLOCK):
        size = min(BLOCK, resamplings - start)
        # for 500 units and more a fourth or less of a multinomial's time, and no floating point
        drawn_bn = rng.integers(n, size=(size, n), dtype=dtype)
        counts_bn = np.stack([np.bincount(units, minlength=n) for units in drawn_bn])
        yield counts_bn.astype(np.min_scalar_type(int(counts_bn.max(initial=0))))


def sums(
    values: npt.NDArray[Any], seed: int, *name: int | str, resamplings: int = RESAMPLINGS
) -> Floats:
    """Σ of `values` [n, …] over the units of each resampling: [B, …]."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    blocks = weights(len(values), seed, *name, resamplings=resamplings)
    total = np.concatenate([np.einsum("bn,nm->bm", w, flat, optimize=True) for w in blocks])
    return total.reshape(len(total), *values.shape[1:])


def interval(statistics: Floats, *, least: float = 0.0) -> list[float] | None:
    """95 % percentile interval of the statistic of each resampling [B]; NaN ones are left out.

    None where less than `least` of them, or none at all, have the statistic.
    """
    finite = statistics[np.isfinite(statistics)]
    if not len(finite) or len(finite) < least * len(statistics):
        return None
    return [float(bound) for bound in np.quantile(finite, ENDS)]


def ratio_interval(
    numerator: npt.NDArray[Any],
    denominator: npt.NDArray[Any],
    seed: int,
    *name: int | str,
    resamplings: int = RESAMPLINGS,
) -> list[float]:
    """95 % interval of Σ numerator / Σ denominator over resampled units.

    Both [n], n ≥ 1, an entry per unit, with a denominator > 0 among them. Units with several
    measurements are clusters: give their sum and their number.
    """
    total = sums(np.stack([numerator, denominator], axis=1), seed, *name, resamplings=resamplings)
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = interval(total[:, 0] / total[:, 1])
    if bounds is None:
        raise ValueError("no denominator is > 0")
    return bounds


def mean_interval(
    values: npt.NDArray[Any],
    seed: int,
    *name: int | str,
    cluster: npt.NDArray[Any] | None = None,
    resamplings: int = RESAMPLINGS,
) -> list[float]:
    """95 % interval of the mean of `values` [n] over resampled units, or over `cluster`s [n]."""
    if cluster is None:
        return ratio_interval(values, np.ones(len(values)), seed, *name, resamplings=resamplings)
    _, place = np.unique(cluster, return_inverse=True)
    return ratio_interval(
        np.bincount(place, weights=values), np.bincount(place), seed, *name,
        resamplings=resamplings,
    )  # fmt: skip
