"""The protocol between the stage and a judge: questions, answers, and the key of an answer."""

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
    """Sampling settings of the model; another `seed` asks the same question anew (test–retest)."""

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
    """The ground truth of a question, which the concepts backend reads instead of its prompt."""

    concepts: tuple[frozenset[str], ...]
    """Per context, in order: the concepts of its marked token, or of all its tokens if unmarked."""
    explanation: str = ""
    """The description that the contexts are tested against; empty where none is tested."""


@dataclass(frozen=True)
class Question:
    """One question. Only the concepts backend reads `truth`, which is no part of the key."""

    prompt: Prompt
    sampling: Sampling = Sampling()
    truth: Truth | None = None


@dataclass(frozen=True)
class Answer:
    """What the judge said."""

    text: str
    cut: bool = False
    """Cut off at max_tokens: no value is read from it."""


class Backend(Protocol):
    """A judge."""

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in the order of the questions; equal questions get the same answer.

        StudyError where some are unavailable; answers received until then are kept.
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
