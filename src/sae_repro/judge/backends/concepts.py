"""The concepts backend: exact answers, offline, from the ground-truth concepts of the tokens."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache

from sae_repro.errors import StudyError
from sae_repro.files import canonical_json
from sae_repro.judge.parsers import POLYSEMANTIC, parse_explanation
from sae_repro.judge.protocol import Answer, Question, Truth
from sae_repro.params import Judge


def excess_fractions(
    contexts: Sequence[Collection[str]], base_rates: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Each concept's fraction P of the contexts, corrected for its base rate π: (P − π)/(1 − π).

    A common concept earns nothing, as in M. Without a base rate π = 0; π = 1 leaves a concept out.
    """
    counts = Counter(c for concepts in contexts for c in set(concepts))
    rates = {concept: (base_rates or {}).get(concept, 0.0) for concept in sorted(counts)}
    return {
        concept: (counts[concept] / len(contexts) - rate) / (1 - rate)
        for concept, rate in rates.items()
        if rate < 1
    }


def label_from(
    fractions: Mapping[str, float], least: float, base_rates: Mapping[str, float]
) -> str:
    """The concept with the largest fraction; POLYSEMANTIC below `least`.

    Of equals the rarest: a child rather than its parent. Then the first by name.
    """
    if not fractions:
        return POLYSEMANTIC
    best = min(
        fractions,
        key=lambda concept: (-fractions[concept], base_rates.get(concept, 0.0), concept),
    )
    return best if fractions[best] >= least else POLYSEMANTIC


class ConceptsBackend:
    """A backend that reads each question's `truth`; `base_rates` has one for every concept.

    An explanation is the concept of largest fraction, however small: the scores tell its worth.
    """

    def __init__(self, settings: Judge, base_rates: Mapping[str, float]) -> None:
        self._least = settings.concept_share
        self._base_rates = base_rates

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers; StudyError for a question without ground truth."""
        return [Answer(self._answer(question)) for question in questions]

    def _answer(self, question: Question) -> str:
        name, truth = question.prompt.name, question.truth
        if truth is None:
            raise StudyError(
                f"judge.kind = concepts: cannot answer the prompt {name}; use kind: http for it"
            )
        if name not in ("label", "explain"):
            return canonical_json(_flags(truth))
        fractions = excess_fractions(truth.concepts, self._base_rates)
        return label_from(fractions, self._least if name == "label" else 0.0, self._base_rates)


def _flags(truth: Truth) -> list[int]:
    return [
        int(any(_explanation(concept) == truth.explanation for concept in concepts))
        for concepts in truth.concepts
    ]


@cache
def _explanation(concept: str) -> str | None:
    """The concept's name as an explanation: the parser may change that of a token."""
    return parse_explanation(concept)
