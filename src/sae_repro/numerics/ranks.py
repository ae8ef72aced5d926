"""Rank correlation, and the part of it that other variables do not explain."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def ranks(values: npt.ArrayLike) -> Floats:
    """Ranks from 1 of `values` [n]; equal ones share the mean of their ranks."""
    _, place, count = np.unique(
        np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True
    )
    last = np.cumsum(count)
    mean: Floats = (last - (count - 1) / 2)[place]
    return mean


def pearson(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Correlation of `a` and `b` [n]; NaN where one of them is constant."""
    x, y = (np.asarray(v, dtype=np.float64) for v in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(np.square(x).sum()) * float(np.square(y).sum()))
    return float((x * y).sum()) / scale if scale else math.nan


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Rank correlation of `a` and `b` [n]; NaN where one of them is constant."""
    return pearson(ranks(a), ranks(b))


def partial_spearman(a: npt.ArrayLike, b: npt.ArrayLike, given: Sequence[npt.ArrayLike]) -> float:
    """Rank correlation of `a` and `b` [n] with the ranks of `given`, each [n], held fixed.

    NaN where `given` explain one of the two wholly. By the recursion of partial correlations: M. G.
    Kendall and A. Stuart 1973, "The advanced theory of statistics", vol. 2, chapter 27.
    """
    if not given:
        return spearman(a, b)
    *rest, last = given
    ab, al, bl = (partial_spearman(x, y, rest) for x, y in ((a, b), (a, last), (b, last)))
    unexplained = (1 - al * al) * (1 - bl * bl)
    if not unexplained > 1e-12:
        return math.nan
    return (ab - al * bl) / math.sqrt(unexplained)
