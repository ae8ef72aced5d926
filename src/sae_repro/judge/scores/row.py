"""A row of the table of scores: everything the stage knows about one score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sae_repro.judge.latent_windows import LatentWindows
from sae_repro.judge.protocol import Question
from sae_repro.judge.questions import QuestionMaker
from sae_repro.params import Judge


@dataclass(frozen=True)
class ScoringQuestion:
    """A question that scores an explanation, and the right answer."""

    question: Question
    truth: Sequence[float] = ()
    """detection, fuzzing: 1 per positive context, 0 per negative; simulation: the activation of
    each token; specificity: nothing."""
    bin: int = -1
    """simulation: the quantile of its context; specificity: that + 1, and 0 for a silent one."""


@dataclass(frozen=True)
class Score:
    """One way to score explanations."""

    prompt: str
    """Name of its template in judge/prompts."""
    questions: Callable[[QuestionMaker, str, LatentWindows, str], list[ScoringQuestion]]
    """The questions on one latent, from (maker, prompt, windows, explanation)."""
    parse: Callable[[str, ScoringQuestion], Any]
    """The value in an answer's text, or None; never raises."""
    value: Callable[[Sequence[ScoringQuestion], Sequence[Any], LatentWindows, Judge], Any]
    """The score of one latent, a dataclass, from its questions and their parsed answers."""
    pooled: Callable[[Sequence[Any], Judge, int], dict[str, Any]]
    """The summary over latents, from (values, settings, seed). It holds the score's headline (see
    `params.SCORE_INFO`), with its `interval` where that is one number."""
    known_to_concepts: bool = False
    """Whether the concepts backend answers: the questions are those of `QuestionMaker.flags`."""
