"""95 % intervals of fractions and means, and the test whether two of them differ."""

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


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval for a fraction of `successes` in `n`; (0, 1) when n = 0.

    Source: E. B. Wilson 1927, "Probable inference, the law of succession, and statistical
    inference".
    """
    if n == 0:
        return 0.0, 1.0
    low, high = _wilson(successes, n)
    return (low if successes else 0.0), (high if successes < n else 1.0)


def _wilson(successes: float, n: float) -> tuple[float, float]:
    """The interval for any effective number of draws, n > 0."""
    fraction = successes / n
    scale = 2 * (n + Z_95**2)
    centre = (2 * n * fraction + Z_95**2) / scale
    half = Z_95 / scale * math.sqrt(4 * n * fraction * (1 - fraction) + Z_95**2)
    return max(0.0, centre - half), min(1.0, centre + half)


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
        return 0.0, 1.0
    fraction = float(x.sum()) / total
    independent = fraction * (1 - fraction) / total
    effect = 1.0
    if groups > 1 and independent > 0:
        between = groups / (groups - 1) * float(np.square(x - n * fraction).sum()) / total**2
        effect = between / independent
    if effect <= 1:  # one sample; its interval is exact where none, or all, succeeded
        return wilson(int(x.sum()), int(total))
    return _wilson(float(x.sum()) / effect, total / effect)


def student(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high): Student's t interval of independent values; NaN bounds of fewer than 2."""
    from scipy.special import stdtrit  # scipy.stats, whose t.ppf it is, takes a second to import

    n = len(values)
    if not n:
        return math.nan, math.nan, math.nan
    mean = float(np.mean(values))
    if n == 1:
        return mean, math.nan, math.nan
    half = float(stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def student_fraction(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high) of independent fractions in [0, 1], such as those of a few seeds.

    Student's t interval of the angles arcsin √p, whose ends stay in [0, 1], widened to hold the
    mean; NaN bounds of fewer than 2. Source: M. S. Bartlett 1936, "The square root transformation
    in analysis of variance".
    """
    # rounding may put a ratio of sums an ulp outside
    angles = np.arcsin(np.sqrt(np.clip(np.asarray(values, dtype=np.float64), 0.0, 1.0)))
    _, low, high = student(angles.tolist())
    mean = float(np.mean(values)) if len(values) else math.nan
    if math.isnan(low):
        return mean, math.nan, math.nan
    bounds = np.square(np.sin(np.clip([low, high], 0.0, np.pi / 2)))
    return mean, min(mean, float(bounds[0])), max(mean, float(bounds[1]))
