"""Specificity: how well a description fits the marked token, 0 to 3, per activation bin."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sae_repro.judge.latent_windows import LatentWindows
from sae_repro.judge.parsers import parse_specificity
from sae_repro.judge.questions import QuestionMaker
from sae_repro.judge.scores.row import Score, ScoringQuestion


@dataclass(frozen=True)
class Specificity:
    """Fit of a description to the marked token, per activation bin."""

    mean: list[float | None]
    """Mean of 0–3 in each bin; None where nothing was answered."""
    answered: list[int]
    unparsable: list[int]


def specificity(bins: Sequence[int], answers: Sequence[int | None], n_bins: int) -> Specificity:
    """The mean answer in each of `n_bins` bins; answer i is on a context of bin `bins[i]`."""
    per_bin: list[list[int | None]] = [[] for _ in range(n_bins)]
    for bin_, answer in zip(bins, answers, strict=True):
        if not 0 <= bin_ < n_bins:
            raise ValueError(f"bin {bin_} of {n_bins}")
        per_bin[bin_].append(answer)
    parsed = [[a for a in answers if a is not None] for answers in per_bin]
    return Specificity(
        mean=[sum(values) / len(values) if values else None for values in parsed],
        answered=[len(values) for values in parsed],
        unparsable=[
            len(replies) - len(values) for replies, values in zip(per_bin, parsed, strict=True)
        ],
    )


def pooled_specificity(values: Sequence[Specificity], n_bins: int) -> dict[str, Any]:
    """Mean answer per bin over all latents together; bin 0 holds silent contexts."""
    answered = [sum(s.answered[b] for s in values) for b in range(n_bins)]
    totals = [sum((s.mean[b] or 0.0) * s.answered[b] for s in values) for b in range(n_bins)]
    return {
        "mean": [total / n if n else None for total, n in zip(totals, answered, strict=True)],
        "answered": answered,
        "latents": len(values),
        "unparsable": sum(sum(s.unparsable) for s in values),
    }


def _questions(
    maker: QuestionMaker, prompt: str, windows: LatentWindows, explanation: str
) -> list[ScoringQuestion]:
    return [
        ScoringQuestion(maker.mark_value(prompt, window, explanation), bin=window.quantile + 1)
        for window in (*windows.positives, *windows.random)
    ]


SPECIFICITY = Score(
    prompt="specificity",
    questions=_questions,
    parse=lambda text, _: parse_specificity(text),
    value=lambda questions, answers, _, settings: specificity(
        [question.bin for question in questions], answers, settings.quantiles + 1
    ),
    pooled=lambda values, settings, _: pooled_specificity(values, settings.quantiles + 1),
)
