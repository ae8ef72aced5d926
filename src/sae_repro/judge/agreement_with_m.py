"""Agreement of M with a judge: the AUC of M for "not POLYSEMANTIC", over labelled latents."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.judge.parsers import POLYSEMANTIC
from sae_repro.numerics.bootstrap import interval, weights

Floats = npt.NDArray[np.float64]


def auc(score: Floats, positive: npt.NDArray[np.bool_]) -> float | None:
    """P(score of a positive > of a negative) + P(equal) / 2; None without either.

    Source: Mann and Whitney 1947; the area under the ROC curve.
    """
    if not len(score):
        return None
    (value,) = weighted_auc(score, positive, np.ones((1, len(score))))
    return float(value) if np.isfinite(value) else None


def weighted_auc(score: Floats, positive: npt.NDArray[np.bool_], weight_bn: Floats) -> Floats:
    """The AUC of `score` [n] with the weights of each row of `weight_bn` [b, n].

    NaN where no weight is on a positive, or none on a negative.
    """
    _, place, size = np.unique(score, return_inverse=True, return_counts=True)
    order, first = np.argsort(place, kind="stable"), np.cumsum(size) - size
    # [b, u]: the weight of positives, and of negatives, on each distinct score
    positive_bu, negative_bu = (
        np.add.reduceat((weight_bn * mask)[:, order], first, axis=1)
        for mask in (positive, ~positive)
    )
    below_bu = np.cumsum(negative_bu, axis=1) - negative_bu
    won = (positive_bu * (below_bu + negative_bu / 2)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        values: Floats = won / (positive_bu.sum(axis=1) * negative_bu.sum(axis=1))
    return values


def agreement_with_m(labels: Mapping[int, str | None], m_k: Floats, seed: int) -> dict[str, Any]:
    """AUC of M over the labelled latents, its 95 % interval over resampled latents, and counts.

    Latents without an answer or without M (silent on a half) are left out and counted; resamplings
    without a labelled or without a polysemantic latent have no AUC, and are left out.
    """
    answered = {latent: label for latent, label in labels.items() if label is not None}
    scored = [latent for latent in answered if np.isfinite(m_k[latent])]
    m_n = m_k[scored]
    positive = np.array([answered[latent] != POLYSEMANTIC for latent in scored], dtype=bool)
    value = auc(m_n, positive)
    bounds = None
    if value is not None:
        blocks = weights(len(scored), seed, "judge", "agreement")
        bounds = interval(
            np.concatenate([weighted_auc(m_n, positive, weight_bn) for weight_bn in blocks])
        )
    return {
        "auc": value,
        "interval": bounds,
        "latents": len(scored),
        "labelled": int(positive.sum()),
        "without_answer": len(labels) - len(answered),
        "without_m": len(answered) - len(scored),
    }
