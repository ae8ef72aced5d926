"""Simulation: correlation of predicted and true activations, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.judge.latent_windows import LatentWindows
from sae_repro.judge.parsers import parse_simulation
from sae_repro.judge.questions import QuestionMaker
from sae_repro.judge.scores.answered import answered_pairs
from sae_repro.judge.scores.row import Score, ScoringQuestion
from sae_repro.numerics.bootstrap import mean_interval

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Simulation:
    """Simulation of one latent."""

    correlation: float | None
    """0 for a constant prediction; None where the true activation is constant, or unanswered."""
    constant: bool
    """Whether the prediction was constant."""
    tokens: int
    unparsable: int
    """Contexts left out because their answers were unparsable."""
    lost_quantiles: int
    """Quantiles with members but without an answered context: they weigh nothing."""


def simulation(
    activations: Sequence[Sequence[float]],
    answers: Sequence[Sequence[int] | None],
    quantiles: Sequence[int],
    population: Sequence[int],
) -> Simulation:
    """Correlation of prediction and activation over all tokens of all answered contexts at once.

    Context i was sampled from quantile `quantiles[i]`, which has `population[quantile]` members;
    each of its tokens weighs members / contexts answered, so that the sample's even spread over
    quantiles does not count rare strong activations as frequent ones.

    Source: Bills et al. 2023, "Language models can explain neurons in language models".
    """
    if len(quantiles) != len(answers):
        raise ValueError(f"{len(quantiles)} quantiles for {len(answers)} answers")
    pairs = answered_pairs(activations, answers)
    answered_quantiles = np.array(
        [q for q, a in zip(quantiles, answers, strict=True) if a is not None], dtype=np.int64
    )
    weights, uncovered = _quantile_weights(
        answered_quantiles, np.asarray(population, dtype=np.float64)
    )
    true, predicted = (_concatenated([pair[side] for pair in pairs]) for side in (0, 1))
    weight = np.repeat(weights, [len(t) for t, _ in pairs])
    counted = weight > 0
    value, constant = _correlation(true[counted], predicted[counted], weight[counted])
    return Simulation(
        correlation=value,
        constant=constant,
        tokens=int(counted.sum()),
        unparsable=len(answers) - len(pairs),
        lost_quantiles=uncovered,
    )


def _quantile_weights(quantile: npt.NDArray[np.int64], population: Floats) -> tuple[Floats, int]:
    """The weight of each context, and how many quantiles with members have no context."""
    sampled = np.bincount(quantile, minlength=len(population))
    if len(sampled) > len(population) or (population < 0).any():
        raise ValueError("population must have a count ≥ 0 for every quantile")
    return population[quantile] / sampled[quantile], int(((population > 0) & (sampled == 0)).sum())


def _correlation(a: Floats, b: Floats, weight: Floats) -> tuple[float | None, bool]:
    """Weighted Pearson correlation of truth `a` and prediction `b`; whether `b` is constant."""
    if not len(a):
        return None, False
    constant = bool(b.min() == b.max())
    if a.min() == a.max():
        return None, constant
    if constant:
        return 0.0, True
    fraction = weight / weight.max()
    fraction = fraction / fraction.sum()
    # to a range of 1 first: squares of huge or tiny activations leave the range of a double
    a, b = ((v - v.min()) / (v.max() - v.min()) for v in (a, b))
    a, b = a - fraction @ a, b - fraction @ b
    norm = np.sqrt((fraction @ a**2) * (fraction @ b**2))
    return float(np.clip(fraction @ (a * b) / norm, -1.0, 1.0)), False


def _concatenated(parts: Sequence[Sequence[float]]) -> Floats:
    flat = np.array([value for part in parts for value in part], dtype=np.float64)
    if not np.isfinite(flat).all():
        raise ValueError("activations must be finite")
    return flat


def pooled_simulation(values: Sequence[Simulation], seed: int) -> dict[str, Any]:
    """Mean correlation over the latents that have one; the interval resamples these."""
    correlations = np.array([s.correlation for s in values if s.correlation is not None])
    return {
        "correlation": float(correlations.mean()) if len(correlations) else None,
        "interval": mean_interval(correlations, seed, "judge", "bootstrap")
        if len(correlations)
        else None,
        "latents": len(correlations),
        "without_correlation": len(values) - len(correlations),
        "constant": sum(s.constant for s in values),
        "tokens": sum(s.tokens for s in values),
        "lost_quantiles": sum(s.lost_quantiles for s in values),
        "unparsable": sum(s.unparsable for s in values),
    }


def _questions(
    maker: QuestionMaker, prompt: str, windows: LatentWindows, explanation: str
) -> list[ScoringQuestion]:
    return [
        ScoringQuestion(
            maker.token_values(prompt, window, explanation), activations, window.quantile
        )
        for window, activations in zip(windows.positives, windows.activations, strict=True)
    ]


SIMULATION = Score(
    prompt="simulate",
    questions=_questions,
    parse=lambda text, question: parse_simulation(text, len(question.truth)),
    value=lambda questions, answers, windows, _: simulation(
        [question.truth for question in questions],
        answers,
        [question.bin for question in questions],
        windows.population,
    ),
    pooled=lambda values, _, seed: pooled_simulation(values, seed),
)
