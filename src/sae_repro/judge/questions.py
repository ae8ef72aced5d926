"""Questions on windows: labels, explanations, and the building blocks of what scores them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sae_repro.judge.ground_truth import TokenConcepts
from sae_repro.judge.held_out_tokens import HeldOutTokens, WindowTexts
from sae_repro.judge.latent_windows import LatentWindows, Window
from sae_repro.judge.leakage import check_disjoint
from sae_repro.judge.prompts import Template
from sae_repro.judge.prompts.fence import Fenced, fenced_texts, fenced_tokens
from sae_repro.judge.protocol import Prompt, Question, Sampling, Truth
from sae_repro.numerics.hashing import uniform_hash
from sae_repro.params import Judge


class QuestionMaker:
    """Makes the questions of one study; `concepts` is None where the judge does not know them."""

    def __init__(
        self,
        tokens: HeldOutTokens,
        texts: WindowTexts,
        concepts: TokenConcepts | None,
        prompts: Mapping[str, Template],
        settings: Judge,
        seed: int,
    ) -> None:
        self._tokens, self._texts, self._concepts = tokens, texts, concepts
        self._prompts, self._sampling, self._seed = prompts, Sampling.of(settings), seed

    def label(self, marks: Sequence[int]) -> Question:
        """Asks what the tokens at the rows `marks` have in common."""
        return self._common("label", [Window(mark=row, centre=row) for row in marks])

    def explain(self, windows: LatentWindows) -> Question:
        """Asks when the latent fires; StudyError where an explaining document scores, too."""
        check_disjoint(self._documents(windows.explain), self._documents(windows.scoring))
        return self._common("explain", windows.explain)

    def flags(
        self, prompt: str, windows: Sequence[Window], explanation: str, *, marked: bool
    ) -> Question:
        """Asks of each window whether the explanation fits it, or its marked token if `marked`."""

        def fill() -> Prompt:
            texts = self._fenced(windows, marked=marked)
            return self._prompts[prompt].fill(
                explanation=explanation, count=len(windows), texts=texts
            )

        return self._question(prompt, fill, windows, explanation, marked=marked)

    def token_values(self, prompt: str, window: Window, explanation: str) -> Question:
        """Asks for a value on each token of the window."""
        first, last = self._tokens.first[window.centre], self._tokens.last[window.centre]
        texts = self._texts.tokens(first, last)
        filled = self._prompts[prompt].fill(
            explanation=explanation, count=len(texts), tokens=fenced_tokens(texts)
        )
        return Question(filled, self._sampling)

    def mark_value(self, prompt: str, window: Window, explanation: str) -> Question:
        """Asks for one value on the window's marked token."""
        texts = self._fenced([window], marked=True)
        filled = self._prompts[prompt].fill(explanation=explanation, texts=texts)
        return Question(filled, self._sampling)

    def order(self, prompt: str, latent: int, windows: Sequence[Window]) -> list[int]:
        """An order of the windows that tells nothing about them, by hash."""
        marks = np.array([w.mark for w in windows], dtype=np.int64)
        centres = np.array([w.centre for w in windows], dtype=np.int64)
        draw = uniform_hash(
            self._seed, f"judge/order/{prompt}", np.full(len(marks), latent), marks, centres
        )
        return [int(i) for i in np.argsort(draw, kind="stable")]

    def _common(self, prompt: str, windows: Sequence[Window]) -> Question:
        def fill() -> Prompt:
            return self._prompts[prompt].fill(texts=self._fenced(windows, marked=True))

        return self._question(prompt, fill, windows, "", marked=True)

    def _question(
        self,
        prompt: str,
        fill: Callable[[], Prompt],
        windows: Sequence[Window],
        explanation: str,
        *,
        marked: bool,
    ) -> Question:
        if self._concepts is None:
            return Question(fill(), self._sampling)
        tokens = self._tokens
        concepts = [
            self._concepts.of(w.mark, w.mark + 1)
            if marked
            else self._concepts.of(tokens.first[w.centre], tokens.last[w.centre])
            for w in windows
        ]
        # the truth is all that is read of it: no text is made
        unread = Prompt(prompt, self._prompts[prompt].version, "")
        return Question(unread, self._sampling, Truth(tuple(concepts), explanation))

    def _fenced(self, windows: Sequence[Window], *, marked: bool) -> Fenced:
        contexts = self._texts.contexts([w.mark for w in windows], [w.centre for w in windows])
        return fenced_texts(contexts, marked=marked)

    def _documents(self, windows: Sequence[Window]) -> list[int]:
        return [int(self._tokens.content[w.centre]) for w in windows]
