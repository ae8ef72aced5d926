"""95 % intervals of means over seeds, and of differences of two, measured on the same documents.

Seeds are independent, those of two cells as well: every random choice is named after the cell, its
seed in it. Documents are shared by all. So the interval has two parts, joined in quadrature: the
seeds', Student's t with Welch's degrees of freedom, and the documents', of the resampled means.
Each part has its own t: one number of degrees of freedom for their sum (F. E. Satterthwaite 1946)
held the truth in 92 % where three seeds of one cell scatter far more than those of the other.

Source of the degrees of freedom: B. L. Welch 1947, "The generalization of 'Student's' problem when
several different population variances are involved", Biometrika 34, in the form with n + 1 and − 2.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEAST_SEEDS = 2
"""With one nothing is known of another: no difference is claimed."""
QUANTILE = 0.975


@dataclass(frozen=True)
class Seeds:
    """What the n seeds of a cell measure: `values` [..., n], on resampled documents [..., B, n]."""

    values: Floats
    resampled: Floats

    @property
    def mean(self) -> Floats:
        """Mean over the seeds on the resampled documents [..., B]."""
        mean: Floats = self.resampled.mean(axis=-1)
        return mean

    @property
    def interaction(self) -> Floats:
        """Variance of the mean by what documents do to one seed and not to another.

        It is in the scatter of `values` already, and in that of the resampled means again.
        """
        n = self.values.shape[-1]
        apart = self.resampled - self.mean[..., None]
        total: Floats = apart.var(axis=-2, ddof=1).sum(axis=-1) / (n * (n - 1))
        return total


Part = tuple[Floats, Floats]
"""(scale, degrees of freedom): half of a 95 % interval is t of these degrees × the scale."""


def half_width(*of: Seeds, documents: int) -> Floats:
    """Half of the interval of one mean, or of the difference of two; each of 2 seeds or more."""
    halves = [_half(part, QUANTILE) for part in parts(*of, documents=documents)]
    return np.hypot(*halves)


def parts(*of: Seeds, documents: int) -> tuple[Part, Part]:
    """The seeds' and the documents' part of one mean, or of the difference of two."""
    mean = of[0].mean if len(of) == 1 else of[0].mean - of[1].mean
    repeated = sum((one.interaction for one in of), np.zeros(()))
    by_documents = np.maximum(mean.var(axis=-1, ddof=1) - repeated, 0.0)
    seeds = seeds_part(*(one.values for one in of))
    return seeds, (np.sqrt(by_documents), np.asarray(documents - 1.0))


def seeds_half(*values: npt.ArrayLike) -> Floats:
    """The seeds' part alone, of one mean or of the difference of two: each [..., n], n ≥ 2."""
    return _half(seeds_part(*values), QUANTILE)


def seeds_part(*values: npt.ArrayLike) -> Part:
    """Standard error of a mean over seeds, or of the difference of two, and Welch's freedom."""
    arrays = [np.asarray(v, dtype=np.float64) for v in values]
    variances = [v.var(axis=-1, ddof=1) / v.shape[-1] for v in arrays]
    more = [v.shape[-1] + 1 for v in arrays]
    total = sum(variances, np.zeros(()))
    weighed = sum((v**2 / m for v, m in zip(variances, more, strict=True)), np.zeros(()))
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = total**2 / weighed - 2
    # seeds without any scatter
    freedom = np.where(weighed > 0, freedom, min(more) - 2)
    return np.sqrt(total), freedom


def p_value(difference: float, *of: Part, error: float = 0.0) -> float:
    """The level at which the interval of a difference ends at 0, its parts joined in quadrature.

    `error` is in the interval at any level. Below 1e-9 it is 1e-9; NaN without a finite interval.
    """
    room = difference**2 - error**2
    if not np.isfinite([difference, *(float(scale) for scale, _ in of)]).all():
        return float("nan")
    if room <= 0:
        return 1.0

    def reaches_0(level: float) -> bool:
        return sum(float(_half(part, 1 - level / 2)) ** 2 for part in of) >= room

    low, high = np.log(1e-9), 0.0  # of the level
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if reaches_0(float(np.exp(middle))) else (low, middle)
    return float(np.exp(high))


def _half(part: Part, quantile: float) -> Floats:
    from scipy.special import stdtrit  # scipy.stats, whose t.ppf it is, takes a second to import

    scale, freedom = part
    half: Floats = stdtrit(freedom, quantile) * scale
    return half
