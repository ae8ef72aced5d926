"""The judge: who says what a latent means, of which latents, and what is scored."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sae_repro.params.base import Device, Section

_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")


def _variable(name: str) -> str:
    """The name of an environment variable; the error never repeats what may be the key itself."""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise ValueError(
            "must be the name of an environment variable (capitals, digits, _), never a key"
        )
    return name


def _endpoint(url: str) -> str:
    """An address without a password, key or query in it; nor does the error repeat one."""
    if not _URL.fullmatch(url):
        raise ValueError(
            "must be http(s)://host[:port][/path] without user, password or query; the key comes "
            "from the variable named in key_env"
        )
    return url


ANSWERS = Path("judge") / "answers.jsonl"
"""Recorded answers, beside params.yaml: no part of artifacts/judge, which a re-run deletes."""

Score = Literal["detection", "fuzzing", "simulation", "specificity"]


class Judge(Section):
    """What latents mean, by a judge: labels as the published grid asked, explanations, scores.

    `http` asks only for what no earlier run has recorded, so a complete record needs neither key
    nor network; `replay` never asks. What another kind reads may stay: one word switches.
    """

    kind: Literal["concepts", "http", "replay"] = Field(
        "concepts",
        description="concepts: the text's own labels; http: a language model behind an "
        "OpenAI-compatible endpoint; replay: only answers recorded earlier",
    )
    concept_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.7,
        description="concepts: share of a latent's contexts, corrected for chance, that its label "
        "must reach: (share − base rate) / (1 − base rate)",
    )
    model: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="http, replay: the model asked, as its endpoint calls it"
    )
    temperature: Annotated[float, Field(ge=0, le=2)] = Field(
        0.0, description="http, replay: sampling temperature"
    )
    max_tokens: Annotated[int, Field(ge=1, le=32_768)] = Field(
        512, description="http, replay: tokens of an answer at most"
    )
    base_url: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        None, description="http: the endpoint up to its version, e.g. https://api.openai.com/v1"
    )
    key_env: Annotated[str, AfterValidator(_variable)] | None = Field(
        None,
        description="http: the environment variable that holds the key, e.g. OPENAI_API_KEY; "
        "null: the endpoint needs none",
    )
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        60, description="http: requests started per minute at most, evenly spaced, retries included"
    )
    in_flight: Annotated[int, Field(ge=1, le=64)] = Field(
        4, description="http: requests under way at one time, at most"
    )
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        60.0, description="http: seconds that one request may take"
    )
    attempts: Annotated[int, Field(ge=1, le=20)] = Field(
        6, description="http: tries per question where the endpoint is busy, slow or failing"
    )

    extremes: Annotated[int, Field(ge=1, le=10_000)] = Field(
        25, description="most selective latents to label, and as many of the least selective"
    )
    uniform: Annotated[int, Field(ge=1, le=100_000)] = Field(
        50, description="alive latents to label, drawn by hash: extremes are not the population"
    )
    latents: Annotated[int, Field(ge=1, le=100_000)] = Field(
        20, description="of those, how many are explained and their explanations scored"
    )
    scores: tuple[Score, ...] = Field(
        ("detection", "fuzzing"),
        description="what explanations are scored by, on other documents than they were written "
        "from; concepts knows detection and fuzzing only; [] for no explanations",
    )
    quantiles: Annotated[int, Field(ge=1, le=20)] = Field(
        5, description="activation quantiles from which contexts to explain and score are drawn"
    )
    contexts_per_quantile: Annotated[int, Field(ge=1, le=100)] = Field(
        2, description="contexts drawn per quantile to explain, and as many to score"
    )
    context_tokens: Annotated[int, Field(ge=1, le=128)] = Field(
        12, description="tokens of a context before and after its marked one"
    )
    threads: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="CPU threads for the SAEs' activations"
    )
    device: Device = Field("cpu", description="for the SAEs: cpu, cuda or cuda:N")

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
