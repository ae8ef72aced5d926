"""Many tests at once: p-values read off intervals, and which of them still hold together."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sae_repro.numerics.intervals import Z_95, Interval

Key = TypeVar("Key", bound=Hashable)

LEVEL = 0.05


def p_above_zero(value: float, interval: Interval, n: int | None = None) -> float:
    """Two-sided p of "the mean is not above 0", from its 95 % interval around `value`.

    `n` seeds: the interval is Student's with n − 1 degrees of freedom; None: a normal one. The
    lower half of the interval is what is read. 1 where the interval holds 0 or has no lower end:
    such a mean is not called above 0 whatever its p.
    """
    from scipy.special import stdtr, stdtrit

    low = interval[0]
    if not low > 0:
        return 1.0
    if value <= low:  # all alike
        return 0.0
    distances = value / (value - low)  # in halves of the interval
    if n is None:
        return math.erfc(Z_95 * distances / math.sqrt(2))
    return 2 * float(stdtr(n - 1, -stdtrit(n - 1, 0.975) * distances))


def benjamini_hochberg(p: Sequence[float], rate: float = 0.05) -> npt.NDArray[np.bool_]:
    """Which of the tests hold such that at most `rate` of these are expected to be false: [n].

    Source: Y. Benjamini and Y. Hochberg 1995, "Controlling the false discovery rate", Journal of
    the Royal Statistical Society B 57; it holds for tests that depend on one another positively, as
    those of cells measured on the same documents do (Benjamini and Yekutieli 2001).
    """
    p_n = np.asarray(p, dtype=np.float64)
    order = np.argsort(p_n, kind="stable")
    below = np.flatnonzero(p_n[order] <= rate * np.arange(1, len(p_n) + 1) / max(1, len(p_n)))
    holds = np.zeros(len(p_n), dtype=bool)
    if len(below):
        holds[order[: below[-1] + 1]] = True
    return holds


def holm(p: Mapping[Key, float]) -> dict[Key, float]:
    """Each p-value adjusted for how many there are; those that are NaN are no comparisons.

    Source: S. Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6.
    """
    tested = sorted((key for key in p if p[key] == p[key]), key=lambda key: p[key])
    adjusted, largest = dict(p), 0.0
    for n, key in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - n) * p[key]))
        adjusted[key] = largest
    return adjusted
