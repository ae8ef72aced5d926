"""The judge that knows the truth: exact, offline, for text whose tokens carry concepts."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from sae_repro.errors import StudyError
from sae_repro.judges.parsers import POLYSEMANTIC
from sae_repro.judges.questions import Answer, Question
from sae_repro.params import Judge

Shares = Mapping[str, float]
Truth = Mapping[str, Shares] | Callable[[str], Shares]
"""For `Question.about`, the share of its contexts that carry each concept."""


def shares(concepts_of_contexts: Sequence[Collection[str]]) -> dict[str, float]:
    """The share of contexts that carry each concept, from the concepts of each context's token."""
    counts = Counter(c for concepts in concepts_of_contexts for c in set(concepts))
    return {concept: n / len(concepts_of_contexts) for concept, n in sorted(counts.items())}


def label_from(found: Shares, share: float) -> str:
    """The most frequent concept, the first by name of equals; POLYSEMANTIC below `share`."""
    if not found:
        return POLYSEMANTIC
    best = min(found, key=lambda concept: (-found[concept], concept))
    return best if found[best] >= share else POLYSEMANTIC


class ConceptsBackend:
    """A backend that answers the prompt `label` from a table or a function."""

    def __init__(self, settings: Judge, truth: Truth) -> None:
        self._share = settings.concept_share
        self._truth = truth

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """The labels; StudyError for another prompt, or for what the table lacks."""
        return [Answer(self._label(question)) for question in questions]

    def _label(self, question: Question) -> str:
        if question.prompt.name != "label":
            raise StudyError(
                f"judge.kind = concepts: knows labels only, not {question.prompt.name!r}; use "
                "kind: http for it"
            )
        return label_from(self._look_up(question.about), self._share)

    def _look_up(self, about: str) -> Shares:
        if callable(self._truth):
            return self._truth(about)
        if about not in self._truth:
            raise StudyError(
                f"judge.kind = concepts: no concepts for {about!r}; run `dvc repro` to count them"
            )
        return self._truth[about]
