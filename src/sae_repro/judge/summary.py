"""What the scores of a cell's explanations come to: pooled over latents, with 95 % intervals.

Latents are what is resampled: contexts of one latent stand or fall together.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.judge.scores import Detection, Simulation, Specificity
from sae_repro.numerics.random import generator

Floats = npt.NDArray[np.float64]
RESAMPLINGS = 1000


def detections(found: Sequence[Detection], seed: int) -> dict[str, Any]:
    """Balanced accuracy and F1 over the contexts of all latents together."""
    counts = np.array(
        [[d.true_positives, d.positives, d.true_negatives, d.negatives] for d in found],
        dtype=np.float64,
    ).reshape(-1, 4)
    total = counts.sum(axis=0)
    drawn = counts[_resampled(len(found), seed)].sum(axis=1)
    tp, positives, tn, negatives = total.tolist()
    wrong = positives - tp + negatives - tn
    return {
        "balanced_accuracy": _known(_balanced(total[None]))[0],
        "interval": _interval(_balanced(drawn)),
        "f1": 2 * tp / (2 * tp + wrong) if tp + wrong else None,
        "latents": len(found),
        "positives": int(positives),
        "negatives": int(negatives),
        "unparsable": sum(d.unparsable for d in found),
    }


def simulations(found: Sequence[Simulation], seed: int) -> dict[str, Any]:
    """Mean correlation over the latents that have one."""
    values = np.array([s.correlation for s in found if s.correlation is not None])
    means = values[_resampled(len(values), seed)].mean(axis=1) if len(values) else values
    return {
        "correlation": float(values.mean()) if len(values) else None,
        "interval": _interval(means),
        "latents": len(values),
        "without_correlation": len(found) - len(values),
        "constant": sum(s.constant for s in found),
        "tokens": sum(s.tokens for s in found),
        "lost_quantiles": sum(s.lost_quantiles for s in found),
        "unparsable": sum(s.unparsable for s in found),
    }


def specificities(found: Sequence[Specificity], n_bins: int) -> dict[str, Any]:
    """Mean answer per bin over all latents together; bin 0 holds silent contexts."""
    answered = [sum(s.answered[b] for s in found) for b in range(n_bins)]
    sums = [sum((s.mean[b] or 0.0) * s.answered[b] for s in found) for b in range(n_bins)]
    return {
        "mean": [total / n if n else None for total, n in zip(sums, answered, strict=True)],
        "answered": answered,
        "latents": len(found),
        "unparsable": sum(sum(s.unparsable) for s in found),
    }


def _resampled(n: int, seed: int) -> npt.NDArray[np.int64]:
    """[RESAMPLINGS, n] latents drawn with replacement."""
    return generator(seed, "judge", "bootstrap").integers(max(n, 1), size=(RESAMPLINGS, n))


def _balanced(counts: Floats) -> Floats:
    """Balanced accuracy of each row of counts [m, 4]; NaN without positives or negatives."""
    with np.errstate(invalid="ignore"):
        values: Floats = (counts[:, 0] / counts[:, 1] + counts[:, 2] / counts[:, 3]) / 2
    return values


def _known(values: Floats) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def _interval(values: Floats) -> list[float] | None:
    known = values[np.isfinite(values)]
    return [float(q) for q in np.quantile(known, [0.025, 0.975])] if len(known) else None
