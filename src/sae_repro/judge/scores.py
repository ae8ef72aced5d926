"""Scores of parsed answers: pure functions, each with its counts.

An answer that could not be parsed (None) is left out and counted. Every score is one ratio over
everything that was answered, never a mean of ratios.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

A = TypeVar("A")
B = TypeVar("B")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Detection:
    """Detection or fuzzing of one latent, or of many together."""

    balanced_accuracy: float | None
    """Mean of the shares of positives and of negatives that were told right; None without both."""
    f1: float | None
    """2·TP / (2·TP + FP + FN); None where nothing is positive, in truth or in the answers."""
    positives: int
    negatives: int
    """Contexts that were answered, by their truth."""
    true_positives: int
    true_negatives: int
    unparsable: int
    """Answers, each on a list of contexts, that were left out."""


def detection(truth: Sequence[Sequence[int]], answers: Sequence[Sequence[int] | None]) -> Detection:
    """The score of lists of 0/1, one per question; ValueError where the lengths differ."""
    pairs = _answered(truth, answers)
    flat = [pair for t, a in pairs for pair in zip(t, a, strict=True)]
    tp, fn = flat.count((1, 1)), flat.count((1, 0))
    fp, tn = flat.count((0, 1)), flat.count((0, 0))
    if tp + fn + fp + tn != len(flat):
        raise ValueError("truth and answers must be 0 or 1")
    both = tp + fn and fp + tn
    return Detection(
        balanced_accuracy=(tp / (tp + fn) + tn / (fp + tn)) / 2 if both else None,
        f1=2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
        positives=tp + fn,
        negatives=fp + tn,
        true_positives=tp,
        true_negatives=tn,
        unparsable=len(answers) - len(pairs),
    )


@dataclass(frozen=True)
class Simulation:
    """Simulation of one latent."""

    correlation: float | None
    """0 for a constant prediction; None where the true activation is constant, or unanswered."""
    constant: bool
    """Whether the prediction was constant."""
    tokens: int
    unparsable: int
    """Contexts that were left out."""
    lost_quantiles: int
    """Quantiles with members of which no context was answered: they weigh nothing."""


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
    pairs = _answered(activations, answers)
    of_answered = np.array(
        [q for q, a in zip(quantiles, answers, strict=True) if a is not None], dtype=np.int64
    )
    weights, lost = _quantile_weights(of_answered, np.asarray(population, dtype=np.float64))
    true, predicted = (_concatenated([pair[side] for pair in pairs]) for side in (0, 1))
    weight = np.repeat(weights, [len(t) for t, _ in pairs])
    weighty = weight > 0
    value, constant = _correlation(true[weighty], predicted[weighty], weight[weighty])
    return Simulation(
        correlation=value,
        constant=constant,
        tokens=int(weighty.sum()),
        unparsable=len(answers) - len(pairs),
        lost_quantiles=lost,
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
    share = weight / weight.max()
    share = share / share.sum()
    # to a range of 1 first: squares of huge or tiny activations leave the range of a double
    a, b = ((v - v.min()) / (v.max() - v.min()) for v in (a, b))
    a, b = a - share @ a, b - share @ b
    norm = np.sqrt((share @ a**2) * (share @ b**2))
    return float(np.clip(share @ (a * b) / norm, -1.0, 1.0)), False


def _concatenated(parts: Sequence[Sequence[float]]) -> Floats:
    flat = np.array([value for part in parts for value in part], dtype=np.float64)
    if not np.isfinite(flat).all():
        raise ValueError("activations must be finite")
    return flat


@dataclass(frozen=True)
class Specificity:
    """How well a description fits, per activation bin."""

    mean: list[float | None]
    """Mean of 0–3 in each bin; None where nothing was answered."""
    answered: list[int]
    unparsable: list[int]


def specificity(bins: Sequence[int], answers: Sequence[int | None], n_bins: int) -> Specificity:
    """The mean answer in each of `n_bins` bins; answer i is on a context of bin `bins[i]`."""
    per_bin: list[list[int | None]] = [[] for _ in range(n_bins)]
    for which, answer in zip(bins, answers, strict=True):
        if not 0 <= which < n_bins:
            raise ValueError(f"bin {which} of {n_bins}")
        per_bin[which].append(answer)
    good = [[a for a in found if a is not None] for found in per_bin]
    return Specificity(
        mean=[sum(g) / len(g) if g else None for g in good],
        answered=[len(g) for g in good],
        unparsable=[len(found) - len(g) for found, g in zip(per_bin, good, strict=True)],
    )


def _answered(
    truth: Sequence[Sequence[A]], answers: Sequence[Sequence[B] | None]
) -> list[tuple[Sequence[A], Sequence[B]]]:
    """The pairs with an answer; ValueError where it has another length than the truth."""
    if len(truth) != len(answers):
        raise ValueError(f"{len(truth)} truths for {len(answers)} answers")
    pairs = [(t, a) for t, a in zip(truth, answers, strict=True) if a is not None]
    for t, a in pairs:
        if len(t) != len(a):
            raise ValueError(f"an answer of length {len(a)} to {len(t)} items")
    return pairs
