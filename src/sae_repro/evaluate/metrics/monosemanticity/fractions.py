"""Monosemantic fractions and the mean score of a table of latents: counts, 95 % intervals."""

from typing import TYPE_CHECKING

import numpy as np

from sae_repro.concepts.bank import ConceptBank
from sae_repro.evaluate.metrics.monosemanticity.score import CLASSES
from sae_repro.evaluate.summary import Summary
from sae_repro.numerics.bootstrap import mean_interval
from sae_repro.numerics.intervals import wilson

if TYPE_CHECKING:
    import pandas as pd

ALL, ALIVE, SCORED, MEAN = NAMES = (
    "monosemantic_fraction",
    "monosemantic_fraction_alive",
    "monosemantic_fraction_scored",
    "monosemantic_mean",
)
UNSCORED = ("dead", "rare", "dense")
"""Classes that a latent has whatever its M."""


def summary(frame: "pd.DataFrame", bank: ConceptBank, seed: int) -> Summary:
    """Fraction of monosemantic latents (complete or narrow) among all, those that fire, and those
    whose class M decides: neither dead nor rare nor dense.

    `monosemantic_mean` is the mean M of latents that fire; one that is silent on a half counts as 0
    there and in `latents_unscored`. Without concepts or without such latents a value is None.
    """
    of_class = {name: int((frame["class"] == name).sum()) for name in CLASSES}
    monosemantic = of_class["monosemantic-complete"] + of_class["monosemantic-narrow"]
    alive = frame["fired"] > 0
    scored = len(frame) - sum(of_class[name] for name in UNSCORED)
    totals = {ALL: len(frame), ALIVE: int(alive.sum()), SCORED: scored}
    score = frame.loc[alive, "M"].fillna(0.0).to_numpy(np.float64)
    possible = bool(bank.names)
    metrics: dict[str, float | None] = {
        name: monosemantic / n if possible and n else None for name, n in totals.items()
    }
    metrics[MEAN] = float(score.mean()) if possible and len(score) else None
    intervals = {
        name: list(wilson(monosemantic, n))
        for name, n in totals.items()
        if metrics[name] is not None
    }
    if metrics[MEAN] is not None:
        intervals[MEAN] = mean_interval(score, seed, MEAN)
    counts = _counts(frame, bank, of_class) | {"latents_scored": scored}
    return Summary(metrics, counts, intervals)


def _counts(frame: "pd.DataFrame", bank: ConceptBank, of_class: dict[str, int]) -> dict[str, int]:
    scored = frame["M"].notna()
    return {
        **{
            f"latents_{name.replace('-', '_').replace(' ', '_')}": n for name, n in of_class.items()
        },
        "latents_unscored": int((~scored & (frame["fired"] > 0)).sum()),
        "latents_without_null": int((scored & frame["null"].isna()).sum()),
        "latents_not_above_null": int((frame["M"] == 0).sum()),
        "concepts": len(bank.names),
        "concepts_left_out": sum(bank.left_out.values()),
        "tokens_fit": int(bank.fit.sum()),
        "tokens_test": int((~bank.fit).sum()),
        "documents_fit": len(np.unique(bank.document[bank.fit])),
        "documents_test": len(np.unique(bank.document[~bank.fit])),
    }
