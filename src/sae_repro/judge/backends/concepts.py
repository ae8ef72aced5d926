"""The judge that knows the truth: exact and offline, from the concepts that tokens carry."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache

from sae_repro.errors import StudyError
from sae_repro.files import canonical_json
from sae_repro.judge.parsers import POLYSEMANTIC, parse_explanation
from sae_repro.judge.questions import Answer, Question, Truth
from sae_repro.params import Judge

KNOWN = ("label", "explain", "detect", "fuzz")
"""The prompts that a set of concepts per context answers."""


def shares(
    contexts: Sequence[Collection[str]], base: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Each concept's share P of the contexts, corrected for its `base` rate π: (P − π)/(1 − π).

    A common concept earns nothing, as in M. Without a base rate π = 0; π = 1 leaves a concept out.
    """
    counts = Counter(c for concepts in contexts for c in set(concepts))
    rates = {concept: (base or {}).get(concept, 0.0) for concept in sorted(counts)}
    return {
        concept: (counts[concept] / len(contexts) - rate) / (1 - rate)
        for concept, rate in rates.items()
        if rate < 1
    }


def label_from(found: Mapping[str, float], share: float, base: Mapping[str, float]) -> str:
    """The concept with the largest share; POLYSEMANTIC below `share`.

    Of equals the rarest: a child rather than its parent. Then the first by name.
    """
    if not found:
        return POLYSEMANTIC
    best = min(found, key=lambda concept: (-found[concept], base.get(concept, 0.0), concept))
    return best if found[best] >= share else POLYSEMANTIC


class ConceptsBackend:
    """A backend that reads each question's `truth`; `base` has the rate of every concept.

    An explanation is the concept that the contexts share most, however little: what that is worth,
    the scores say.
    """

    def __init__(self, settings: Judge, base: Mapping[str, float]) -> None:
        self._share = settings.concept_share
        self._base = base

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers; StudyError for a prompt to which concepts are no answer."""
        return [Answer(self._answer(question)) for question in questions]

    def _answer(self, question: Question) -> str:
        name, truth = question.prompt.name, question.truth
        if name not in KNOWN:
            raise StudyError(
                f"judge.kind = concepts: answers {', '.join(KNOWN)} only, not {name}; use kind: "
                "http for it"
            )
        assert truth is not None
        if name in ("detect", "fuzz"):
            return canonical_json(_carried(truth))
        found = shares(truth.concepts, self._base)
        return label_from(found, self._share if name == "label" else 0.0, self._base)


def _carried(truth: Truth) -> list[int]:
    return [
        int(any(_explanation(concept) == truth.explanation for concept in concepts))
        for concepts in truth.concepts
    ]


@cache
def _explanation(concept: str) -> str | None:
    """A concept as an explanation: the parser may change a token's name."""
    return parse_explanation(concept)
