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


def half_width(*of: Seeds, documents: int) -> Floats:
    """Half of the interval of one mean, or of the difference of two; each of 2 seeds or more."""
    mean = of[0].mean if len(of) == 1 else of[0].mean - of[1].mean
    repeated = sum((one.interaction for one in of), np.zeros(()))
    by_documents = np.maximum(mean.var(axis=-1, ddof=1) - repeated, 0.0)
    from scipy.stats import t

    documents_half = t.ppf(QUANTILE, documents - 1) * np.sqrt(by_documents)
    half: Floats = np.hypot(seeds_half(*(one.values for one in of)), documents_half)
    return half


def seeds_half(*values: npt.ArrayLike) -> Floats:
    """The seeds' part alone, of one mean or of the difference of two: each [..., n], n ≥ 2."""
    from scipy.stats import t

    arrays = [np.asarray(v, dtype=np.float64) for v in values]
    variances = [v.var(axis=-1, ddof=1) / v.shape[-1] for v in arrays]
    more = [v.shape[-1] + 1 for v in arrays]
    total = sum(variances, np.zeros(()))
    weighed = sum((v**2 / m for v, m in zip(variances, more, strict=True)), np.zeros(()))
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = total**2 / weighed - 2
    # seeds without any scatter
    freedom = np.where(weighed > 0, freedom, min(more) - 2)
    half: Floats = t.ppf(QUANTILE, freedom) * np.sqrt(total)
    return half
