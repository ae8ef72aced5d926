"""The published grid's rate of monosemantic latents, and the same over a fair sample.

Selectivity of a latent = mean of its positive activations / ln(their number + 1), for latents with
at least 10. The judge labels the 25 most and the 25 least selective; the rate is the share that
gets a label. Extremes are not the population: a uniform sample of alive latents stands beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_repro.judge.documents import draw
from sae_repro.judge.parsers import POLYSEMANTIC
from sae_repro.numerics.intervals import wilson

LEAST_POSITIVES = 10
EXTREMES = 25
UNIFORM = 50


def selectivity(
    positive_sum_k: npt.NDArray[np.float64], positive_count_k: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Selectivity of each latent [K]; NaN below 10 positive activations.

    `positive_sum_k` is the sum of a latent's positive activations, `positive_count_k` their number.
    """
    enough = positive_count_k >= LEAST_POSITIVES
    n_k = np.where(enough, positive_count_k, LEAST_POSITIVES).astype(np.float64)
    return np.where(enough, positive_sum_k / n_k / np.log(n_k + 1), np.nan)


@dataclass(frozen=True)
class Chosen:
    """The latents to judge. A latent of the sample may be an extreme, too."""

    top: list[int]
    bottom: list[int]
    uniform: list[int]
    too_few: int
    """Alive latents with fewer than 10 positive activations: no extreme can be one of them."""


def choose(
    selectivity_k: npt.NDArray[np.float64],
    alive_k: npt.NDArray[np.bool_],
    seed: int,
    *,
    extremes: int = EXTREMES,
    uniform: int = UNIFORM,
) -> Chosen:
    """The most and the least selective, most extreme first, and a sample of the alive ones.

    With fewer than 2 · `extremes` latents to rank, each end gets half. Equal ones: lower number
    first. The sample is by a hash of (seed, latent): a latent's luck depends on no other latent.
    """
    ranked = np.flatnonzero(np.isfinite(selectivity_k))
    n = min(extremes, len(ranked) // 2)
    falling = ranked[np.argsort(-selectivity_k[ranked], kind="stable")]
    alive = np.flatnonzero(alive_k)
    return Chosen(
        top=falling[:n].tolist(),
        bottom=falling[::-1][:n].tolist(),
        uniform=sorted(draw(alive.tolist(), uniform, seed, "judge", "uniform")),
        too_few=int((alive_k & ~np.isfinite(selectivity_k)).sum()),
    )


@dataclass(frozen=True)
class Rate:
    """The share of latents that got a label."""

    rate: float | None
    interval: tuple[float, float]
    """Wilson, 95 %."""
    labelled: int
    answered: int
    unparsable: int


def rate(labels: Sequence[str | None]) -> Rate:
    """Labelled over answered; None, an unparsable answer, is left out and counted."""
    answered = [label for label in labels if label is not None]
    labelled = sum(label != POLYSEMANTIC for label in answered)
    return Rate(
        rate=labelled / len(answered) if answered else None,
        interval=wilson(labelled, len(answered)),
        labelled=labelled,
        answered=len(answered),
        unparsable=len(labels) - len(answered),
    )
