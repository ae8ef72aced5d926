"""Detection and fuzzing: flags on contexts, or on their marked tokens, against the firings.

Flags over all answered contexts make one ratio, never a mean of ratios.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.judge.latent_windows import LatentWindows
from sae_repro.judge.parsers import parse_flags
from sae_repro.judge.questions import QuestionMaker
from sae_repro.judge.scores.answered import answered_pairs
from sae_repro.judge.scores.row import Score, ScoringQuestion
from sae_repro.numerics.bootstrap import interval, sums

Floats = npt.NDArray[np.float64]
LIST_LENGTH = 10  # contexts in one question at most


@dataclass(frozen=True)
class Detection:
    """Detection or fuzzing of one latent, or of many together."""

    balanced_accuracy: float | None
    """Mean of the fractions of positives and of negatives answered right; None without both."""
    f1: float | None
    """2·TP / (2·TP + FP + FN); None where nothing is positive, in truth or in the answers."""
    positives: int
    negatives: int
    """Answered contexts, by their truth."""
    true_positives: int
    true_negatives: int
    unparsable: int
    """Answers, each on a list of contexts, left out because they were unparsable."""


def detection(truth: Sequence[Sequence[int]], answers: Sequence[Sequence[int] | None]) -> Detection:
    """The score of lists of 0/1, one per question; ValueError where the lengths differ."""
    pairs = answered_pairs(truth, answers)
    flat = [pair for t, a in pairs for pair in zip(t, a, strict=True)]
    tp, fn = flat.count((1, 1)), flat.count((1, 0))
    fp, tn = flat.count((0, 1)), flat.count((0, 0))
    if tp + fn + fp + tn != len(flat):
        raise ValueError("truth and answers must be 0 or 1")
    defined = tp + fn and fp + tn
    return Detection(
        balanced_accuracy=(tp / (tp + fn) + tn / (fp + tn)) / 2 if defined else None,
        f1=2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
        positives=tp + fn,
        negatives=fp + tn,
        true_positives=tp,
        true_negatives=tn,
        unparsable=len(answers) - len(pairs),
    )


def pooled_detection(values: Sequence[Detection], seed: int) -> dict[str, Any]:
    """Balanced accuracy and F1 over the contexts of all latents together.

    The interval resamples latents: the contexts of one latent are no independent units.
    """
    counts = np.array(
        [[d.true_positives, d.positives, d.true_negatives, d.negatives] for d in values],
        dtype=np.float64,
    ).reshape(-1, 4)
    total = counts.sum(axis=0)
    accuracy = float(_balanced_accuracy(total[None])[0])
    tp, positives, tn, negatives = total.tolist()
    errors = positives - tp + negatives - tn
    resampled = sums(counts, seed, "judge", "bootstrap") if len(values) else counts
    return {
        "balanced_accuracy": accuracy if np.isfinite(accuracy) else None,
        "interval": interval(_balanced_accuracy(resampled)),
        "f1": 2 * tp / (2 * tp + errors) if tp + errors else None,
        "latents": len(values),
        "positives": int(positives),
        "negatives": int(negatives),
        "unparsable": sum(d.unparsable for d in values),
    }


def _balanced_accuracy(counts: Floats) -> Floats:
    """Balanced accuracy of each row of counts [m, 4]; NaN without positives or negatives."""
    with np.errstate(invalid="ignore"):
        values: Floats = (counts[:, 0] / counts[:, 1] + counts[:, 2] / counts[:, 3]) / 2
    return values


def flag_lists(
    maker: QuestionMaker, prompt: str, windows: LatentWindows, explanation: str, *, marked: bool
) -> list[ScoringQuestion]:
    """Positives and as many negatives, shuffled, at most `LIST_LENGTH` to a question.

    Half the negatives are hard (marked on a silent token, or around the nearest latent); random
    ones stand in where there are too few.
    """
    n = len(windows.positives)
    hard = (windows.wrong if marked else windows.hard)[: n // 2]
    negatives = [*hard, *windows.random[: n - len(hard)]]
    contexts = [*windows.positives, *negatives]
    flags = [1] * n + [0] * len(negatives)
    order = maker.order(prompt, windows.latent, contexts)
    return [
        ScoringQuestion(
            maker.flags(prompt, [contexts[i] for i in part], explanation, marked=marked),
            [flags[i] for i in part],
        )
        for part in (order[i : i + LIST_LENGTH] for i in range(0, len(order), LIST_LENGTH))
    ]


def flag_score(prompt: str, *, marked: bool) -> Score:
    """The row of a score by flags on whole contexts, or on their tokens if `marked`."""
    return Score(
        prompt=prompt,
        questions=lambda *arguments: flag_lists(*arguments, marked=marked),
        parse=lambda text, question: parse_flags(text, len(question.truth)),
        value=lambda questions, answers, *_: detection(
            [[int(flag) for flag in question.truth] for question in questions], answers
        ),
        pooled=lambda values, _, seed: pooled_detection(values, seed),
        known_to_concepts=True,
    )
