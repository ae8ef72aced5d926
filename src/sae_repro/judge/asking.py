"""From windows to questions, and from answers to scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sae_repro.judge import prompts as templates
from sae_repro.judge.contexts import Context
from sae_repro.judge.documents import check_disjoint, fraction
from sae_repro.judge.questions import Prompt, Question, Sampling, Truth
from sae_repro.judge.rows import Rows, Texts
from sae_repro.judge.truth import TextConcepts
from sae_repro.judge.windows import Material, Window
from sae_repro.params import Judge

LISTED = 10  # contexts in one question at most


@dataclass(frozen=True)
class Asked:
    """A question that scores an explanation, and what would be right."""

    question: Question
    truth: list[int] | list[float]
    """detection, fuzzing: whether each context is a positive; simulation: each token's activation;
    specificity: nothing."""
    bin: int = -1
    """simulation: the quantile of its context; specificity: that + 1, and 0 for a silent one."""


class Asker:
    """Makes the questions of one study. `truth` is None where the judge does not know it."""

    def __init__(
        self, rows: Rows, texts: Texts, truth: TextConcepts | None, settings: Judge, seed: int
    ) -> None:
        self._rows, self._texts, self._truth = rows, texts, truth
        self._sampling, self._seed = Sampling.of(settings), seed

    def label(self, marks: Sequence[int]) -> Question:
        """What do the marked rows have in common?"""
        windows = [Window(mark=row, centre=row) for row in marks]
        return self._question(templates.label, windows, marked=True)

    def explain(self, material: Material) -> Question:
        """When does the latent fire? StudyError where a text would score it, too."""
        scoring = [*material.positives, *material.random, *material.hard, *material.wrong]
        check_disjoint(self._of(material.explain), self._of(scoring))
        return self._question(templates.explain, material.explain, marked=True)

    def _of(self, windows: Sequence[Window]) -> list[int]:
        return [int(self._rows.text[w.centre]) for w in windows]

    def test(self, score: str, material: Material, explanation: str) -> list[Asked]:
        """The questions behind one of `judge.scores`."""
        match score:
            case "detection":
                return self._lists(templates.detect, material, explanation, material.hard)
            case "fuzzing":
                return self._lists(templates.fuzz, material, explanation, material.wrong)
            case "simulation":
                return [
                    self._simulated(window, truth, explanation)
                    for window, truth in zip(material.positives, material.activations, strict=True)
                ]
            case _:
                windows = [*material.positives, *material.random]
                prompts = [templates.specificity(explanation, c) for c in self._contexts(windows)]
                return [
                    Asked(Question(prompt, self._sampling), [], window.quantile + 1)
                    for prompt, window in zip(prompts, windows, strict=True)
                ]

    def _simulated(self, window: Window, truth: list[float], explanation: str) -> Asked:
        rows = self._rows
        tokens = self._texts.tokens(rows.first[window.centre], rows.last[window.centre])
        prompt = templates.simulate(explanation, tokens)
        return Asked(Question(prompt, self._sampling), truth, window.quantile)

    def _lists(
        self,
        template: Callable[..., Prompt],
        material: Material,
        explanation: str,
        hard: Sequence[Window],
    ) -> list[Asked]:
        """Positives and as many negatives in an order that tells nothing, `LISTED` to a question.

        Half the negatives are hard; where these are too few, random ones stand in.
        """
        n = len(material.positives)
        negatives = [*hard[: n // 2], *material.random[: n - len(hard[: n // 2])]]
        flagged = [(w, 1) for w in material.positives] + [(w, 0) for w in negatives]
        name = template.__name__
        flagged.sort(
            key=lambda pair: fraction(
                self._seed, "judge", name, material.latent, pair[0].mark, pair[0].centre
            )
        )
        lists = [flagged[i : i + LISTED] for i in range(0, len(flagged), LISTED)]
        return [
            Asked(
                self._question(
                    template, [w for w, _ in part], marked=name != "detect", explanation=explanation
                ),
                [flag for _, flag in part],
            )
            for part in lists
        ]

    def _question(
        self,
        template: Callable[..., Prompt],
        windows: Sequence[Window],
        *,
        marked: bool,
        explanation: str | None = None,
    ) -> Question:
        contexts = self._contexts(windows)
        prompt = template(contexts) if explanation is None else template(explanation, contexts)
        if self._truth is None:
            return Question(prompt, self._sampling)
        rows = self._rows
        concepts = [
            self._truth.of(w.mark, w.mark + 1)
            if marked
            else self._truth.of(rows.first[w.centre], rows.last[w.centre])
            for w in windows
        ]
        return Question(prompt, self._sampling, Truth(tuple(concepts), explanation or ""))

    def _contexts(self, windows: Sequence[Window]) -> list[Context]:
        return self._texts.contexts([w.mark for w in windows], [w.centre for w in windows])
