"""What a judge is asked and what it answers; the key under which an answer is recorded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sae_repro.files import digest
from sae_repro.params import Judge


@dataclass(frozen=True)
class Prompt:
    """A filled template: `name` and `version` are those of its file."""

    name: str
    version: int
    text: str


@dataclass(frozen=True)
class Sampling:
    """How the model draws its answer; another `seed` asks the same question anew (test–retest)."""

    temperature: float = 0.0
    max_tokens: int = 512
    seed: int | None = None

    @classmethod
    def of(cls, settings: Judge, seed: int | None = None) -> "Sampling":
        """As params.yaml says."""
        return cls(settings.temperature, settings.max_tokens, seed)

    def fields(self) -> dict[str, float | int]:
        """The fields of a request; without a seed there is none."""
        seed = {} if self.seed is None else {"seed": self.seed}
        return {"temperature": float(self.temperature), "max_tokens": self.max_tokens, **seed}


@dataclass(frozen=True)
class Truth:
    """What a backend that knows the truth reads of a question, instead of its prompt."""

    concepts: tuple[frozenset[str], ...]
    """Of each context, in order: those of its marked token, or of all its tokens if none is."""
    explanation: str = ""
    """What the contexts are tested against, where they are."""


@dataclass(frozen=True)
class Question:
    """One question; no other backend than that of concepts reads `truth`, no part of the key."""

    prompt: Prompt
    sampling: Sampling = Sampling()
    truth: Truth | None = None


@dataclass(frozen=True)
class Answer:
    """What came back: a text, or the `fault` for which there is none."""

    text: str | None
    fault: str | None = None


class Backend(Protocol):
    """A judge."""

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in the order of the questions; equal questions get the same answer.

        StudyError where some can't be had; what was answered until then is kept.
        """
        ...


def key_of(model: str, question: Question) -> str:
    """SHA-256 of the model, the prompt with its version, and the sampling parameters."""
    prompt = question.prompt
    return digest(
        {
            "model": model,
            "prompt": {"name": prompt.name, "version": prompt.version, "text": prompt.text},
            "sampling": question.sampling.fields(),
        }
    )
