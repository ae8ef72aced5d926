"""Does M agree with the judge? The AUC of M for "not POLYSEMANTIC", over labelled latents."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from sae_repro.judge.parsers import POLYSEMANTIC
from sae_repro.numerics.random import generator

Floats = npt.NDArray[np.float64]
RESAMPLINGS = 1000


def auc(score: Floats, positive: npt.NDArray[np.bool_]) -> float | None:
    """P(score of a positive > of a negative) + P(equal) / 2; None without either.

    Source: Mann and Whitney 1947; the area under the ROC curve.
    """
    n = int(positive.sum())
    others = len(positive) - n
    if not n or not others:
        return None
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * others))


def agreement(labels: Mapping[int, str | None], m_k: Floats, seed: int) -> dict[str, Any]:
    """AUC of M over the labelled latents, its 95 % interval over resampled latents, and counts.

    Latents without an answer or without M (silent on a half) are left out and counted; resamplings
    that hold one kind only are drawn, and not counted in.
    """
    answered = {latent: label for latent, label in labels.items() if label is not None}
    scored = [latent for latent in answered if np.isfinite(m_k[latent])]
    m_n = m_k[scored]
    positive = np.array([answered[latent] != POLYSEMANTIC for latent in scored], dtype=bool)
    rng = generator(seed, "judge", "agreement")
    drawn = (rng.integers(len(scored), size=len(scored)) for _ in range(RESAMPLINGS))
    value = auc(m_n, positive)
    found = (
        [] if value is None else [v for i in drawn if (v := auc(m_n[i], positive[i])) is not None]
    )
    return {
        "auc": value,
        "interval": [float(q) for q in np.quantile(found, [0.025, 0.975])] if found else None,
        "latents": len(scored),
        "labelled": int(positive.sum()),
        "without_answer": len(labels) - len(answered),
        "without_m": len(answered) - len(scored),
    }
