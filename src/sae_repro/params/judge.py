"""The stage `judge`: the judge, the latents it labels, and the scores of its explanations."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sae_repro.errors import UNPRINTABLE
from sae_repro.params.base import Device, Many, Place, Section, Sha256, Text

_URL = re.compile(rf"https?://[^\s{UNPRINTABLE}/?#@]+(/[^\s{UNPRINTABLE}?#@]*)?")


def _variable(name: str) -> str:
    """The name of an environment variable; the error never repeats what may be the key itself."""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise ValueError(
            "must be the name of an environment variable (capitals, digits, _), never a key"
        )
    return name


def _endpoint(url: str) -> str:
    """A URL without a password, key or query in it; the error does not repeat one either."""
    if not _URL.fullmatch(url):
        raise ValueError(
            "must be http(s)://host[:port][/path] without user, password or query; the key comes "
            "from the variable named in key_env"
        )
    return url


ANSWERS = Path("judge") / "answers.jsonl"
"""Recorded answers, beside params.yaml: no part of artifacts/judge, which a re-run deletes."""

PromptName = Literal["label", "explain", "detect", "fuzz", "simulate", "specificity"]

Score = Literal["detection", "fuzzing", "simulation", "specificity"]


@dataclass(frozen=True)
class ScoreInfo:
    """The text on a score in tables and documentation; its computation is a row of judge.scores."""

    headline: str
    """Key of the value in the score's summary that tables show first; a list has one per bin."""
    chance: float | None
    """The value of a judge that knows nothing of the latent; None where that depends on it."""
    meaning: str


SCORE_INFO: Mapping[str, ScoreInfo] = {
    "detection": ScoreInfo(
        "balanced_accuracy",
        0.5,
        "does the latent fire anywhere in the context? Balanced accuracy over contexts, half of "
        "them silent, half of those hard",
    ),
    "fuzzing": ScoreInfo(
        "balanced_accuracy",
        0.5,
        "does the latent fire on the marked token? Balanced accuracy over contexts, half of them "
        "marked where it is silent",
    ),
    "simulation": ScoreInfo(
        "correlation",
        0.0,
        "correlation of predicted and true activation over all tokens of the scored contexts",
    ),
    "specificity": ScoreInfo(
        "mean",
        None,
        "how well the description fits the marked token, 0 to 3, per activation quantile; bin 0 "
        "holds silent contexts",
    ),
}


class PromptFile(Section):
    """A study's own wording of a prompt, pinned by its content."""

    path: Place = Field(
        description="text file, relative to params.yaml: `version: N`, an empty line, the wording "
        "with the same {{placeholders}} as the file it replaces"
    )
    sha256: Sha256 = Field(description="of the file (`sae-repro pin` fills it in)")


class Judge(Section):
    """Labels of latents as the published grid asked for them, explanations, and their scores.

    `http` asks only for what no earlier run has recorded, so a complete record needs neither key
    nor network; `replay` never asks. Keys that only another kind reads may stay, so that changing
    `kind` alone switches the judge.
    """

    kind: Literal["concepts", "http", "human", "replay"] = Field(
        "concepts",
        description="concepts: the ground-truth labels of the text; http: a language model behind "
        "an OpenAI-compatible endpoint; human: a person, by a sheet of questions; replay: answers "
        "recorded earlier, and nothing else",
    )
    concept_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.7,
        description="concepts: fraction of a latent's contexts, corrected for chance, that its "
        "label must reach: (fraction − base rate) / (1 − base rate)",
    )
    model: Text | None = Field(
        None,
        description="http, replay: the model, by its name at the endpoint; human: the rater's name",
    )
    temperature: Annotated[float, Field(ge=0, le=2)] = Field(
        0.0, description="http, replay: sampling temperature"
    )
    max_tokens: Annotated[int, Field(ge=1, le=32_768)] = Field(
        512, description="http, replay: longest answer, in tokens, with the reasoning before it"
    )
    cut_off: Literal["stop", "unparsable"] = Field(
        "stop",
        description="http: an answer cut off at max_tokens ends the run (stop), or is recorded and "
        "counted as one that can't be read (unparsable), for models that ramble at any limit",
    )
    base_url: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        None,
        description="http: the endpoint's URL up to its version, e.g. https://api.openai.com/v1",
    )
    key_env: Annotated[str, AfterValidator(_variable)] | None = Field(
        None,
        description="http: the environment variable that holds the key, e.g. OPENAI_API_KEY; "
        "null: the endpoint needs none",
    )
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        60, description="http: most requests per minute, evenly spaced, retries included"
    )
    in_flight: Annotated[int, Field(ge=1, le=64)] = Field(
        4, description="http: most requests in flight at once"
    )
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        60.0, description="http: time limit of one request, in seconds"
    )
    attempts: Annotated[int, Field(ge=1, le=20)] = Field(
        6, description="http: attempts per question while the endpoint is busy, slow or failing"
    )

    extremes: Annotated[int, Field(ge=1, le=10_000)] = Field(
        25, description="most selective latents to label, and as many of the least selective ones"
    )
    uniform: Annotated[int, Field(ge=1, le=100_000)] = Field(
        50, description="size of the uniform sample of alive latents to label, drawn by hash"
    )
    latents: Annotated[int, Field(ge=1, le=100_000)] = Field(
        20, description="latents of that sample to explain, and whose explanations are scored"
    )
    scores: Many[Score] = Field(
        ("detection", "fuzzing"),
        description="scores of explanations, on other documents than those they were written "
        "from; concepts measures detection and fuzzing only; [] for no explanations",
    )
    quantiles: Annotated[int, Field(ge=1, le=20)] = Field(
        5, description="activation quantiles from which explaining and scoring contexts are drawn"
    )
    contexts_per_quantile: Annotated[int, Field(ge=1, le=100)] = Field(
        2, description="explaining contexts per quantile, and as many scoring ones"
    )
    context_tokens: Annotated[int, Field(ge=1, le=128)] = Field(
        12, description="tokens shown before and after the marked one"
    )
    prompts: dict[PromptName, PromptFile] = Field(
        default_factory=dict,
        description="the study's own wording of prompts, by name; the others are those of "
        "src/sae_repro/judge/prompts",
    )
    threads: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="CPU threads that compute the SAEs' activations"
    )
    device: Device = Field("cpu", description="device of the SAEs: cpu, cuda or cuda:N")

    @model_validator(mode="after")
    def _scores_once(self) -> Self:
        if len(set(self.scores)) < len(self.scores):
            raise ValueError("scores names one score twice")
        return self

    @model_validator(mode="after")
    def _explained_latents_have_labels(self) -> Self:
        if self.scores and self.latents > self.uniform:
            raise ValueError(
                f"latents = {self.latents}: at most uniform = {self.uniform}, the labelled sample "
                "of which the explained ones are a part"
            )
        return self

    @model_validator(mode="after")
    def _the_kind_has_what_it_reads(self) -> Self:
        if self.kind != "concepts" and self.model is None:
            raise ValueError(f"kind: {self.kind} needs model")
        if self.kind == "http" and self.base_url is None:
            raise ValueError("kind: http needs base_url")
        return self
