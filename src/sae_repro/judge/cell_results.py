"""The parts of a judged SAE's results: labelled fractions, agreement with M, scores."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sae_repro.judge.agreement_with_m import agreement_with_m
from sae_repro.judge.latent_selection import SelectedLatents
from sae_repro.judge.latent_windows import LatentWindows
from sae_repro.judge.parsers import POLYSEMANTIC, Counts, read_each
from sae_repro.judge.protocol import Answer
from sae_repro.judge.scores import SCORES, Score, ScoringQuestion
from sae_repro.numerics.intervals import wilson
from sae_repro.params import Judge


@dataclass(frozen=True)
class Rate:
    """The fraction of latents that got a label."""

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


def rates(latents: SelectedLatents, labels: Mapping[int, str | None]) -> dict[str, Any]:
    """The labelled fractions over the extremes, as published, and over the uniform sample."""
    selection = latents.selection
    groups = {
        "extremes": [*selection.top, *selection.bottom],
        "top": selection.top,
        "bottom": selection.bottom,
        "uniform": selection.uniform,
    }
    return {name: asdict(rate([labels[k] for k in group])) for name, group in groups.items()}


def agreement(
    evaluated: Path, latents: SelectedLatents, labels: Mapping[int, str | None], seed: int
) -> dict[str, Any] | None:
    """AUC of M over the uniform sample; None where M was not measured."""
    import pandas as pd

    path = evaluated / "monosemantic.parquet"
    if not path.is_file():
        return None
    m_k = pd.read_parquet(path, columns=["M"])["M"].to_numpy(np.float64)
    return agreement_with_m({k: labels[k] for k in latents.selection.uniform}, m_k, seed)


@dataclass(frozen=True)
class ExplainedLatent:
    """A latent, its explanation, and the questions and answers that score it."""

    windows: LatentWindows
    explanation: str | None
    questions: Mapping[str, list[ScoringQuestion]]
    answers: Mapping[str, list[Answer]]


def score_results(
    explained: Sequence[ExplainedLatent], settings: Judge, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, dict[str, int]]]:
    """(summary of each score over all latents, an entry per latent, counts of answers)."""
    values: dict[str, list[Any]] = {}
    entries, counts = [], dict[str, list[Counts]]()
    for latent in explained:
        entry: dict[str, Any] = {
            "latent": latent.windows.latent,
            "explanation": latent.explanation,
            "contexts": _numbers_of_windows(latent.windows),
        }
        for name, questions in latent.questions.items():
            row = SCORES[name]
            parsers = [partial(_parse, row, question) for question in questions]
            answers, count = read_each(latent.answers[name], parsers)
            value = row.value(questions, answers, latent.windows, settings)
            entry[name] = asdict(value)
            values.setdefault(name, []).append(value)
            counts.setdefault(name, []).append(count)
        entries.append(entry)
    return (
        {name: SCORES[name].pooled(of_score, settings, seed) for name, of_score in values.items()},
        entries,
        {name: _total(of_score) for name, of_score in counts.items()},
    )


def _parse(row: Score, question: ScoringQuestion, text: str) -> Any:
    return row.parse(text, question)


def _numbers_of_windows(windows: LatentWindows) -> dict[str, int]:
    return {
        name: len(getattr(windows, name))
        for name in ("explain", "positives", "random", "hard", "wrong")
    }


def _total(counts: Sequence[Counts]) -> dict[str, int]:
    return {
        name: sum(getattr(count, name) for count in counts) for name in ("parsed", "unparsable")
    }
