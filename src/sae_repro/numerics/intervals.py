"""95 % intervals, and what may be said of two of them."""

import math
from collections.abc import Sequence

import numpy as np

Z_95 = 1.959963984540054


Interval = tuple[float, float] | Sequence[float]
"""(low, high)."""


def differ(a: Interval, b: Interval) -> bool:
    """Whether two intervals have no point in common: only then are the numbers called different.

    False where a bound is NaN.
    """
    return bool(a[1] < b[0] or b[1] < a[0])


def wilson(successes: float, n: float, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval for a share of `successes` in `n`; (0, 1) when n = 0.

    Source: E. B. Wilson 1927, "Probable inference, the law of succession, and statistical
    inference".
    """
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def wilson_over_groups(successes: Sequence[int], totals: Sequence[int]) -> tuple[float, float]:
    """Wilson's interval for Σ successes / Σ totals of groups that may differ, such as seeds.

    The number of draws is divided by the variance between groups over that of independent draws,
    if it is larger than 1. Source: J. N. K. Rao and A. J. Scott 1992, "A simple method for the
    analysis of clustered binary data", Biometrics 48. With few groups that variance is itself known
    badly.
    """
    x, n = np.array(successes, dtype=np.float64), np.array(totals, dtype=np.float64)
    total, groups = float(n.sum()), len(n)
    if not total:
        return wilson(0, 0)
    share = float(x.sum()) / total
    independent = share * (1 - share) / total
    effect = 1.0
    if groups > 1 and independent > 0:
        between = groups / (groups - 1) * float(np.square(x - n * share).sum()) / total**2
        effect = max(1.0, between / independent)
    return wilson(float(x.sum()) / effect, total / effect)


def student(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high): Student's t interval of independent values; NaN bounds of fewer than 2."""
    from scipy.stats import t

    n = len(values)
    if not n:
        return math.nan, math.nan, math.nan
    mean = float(np.mean(values))
    if n == 1:
        return mean, math.nan, math.nan
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half
