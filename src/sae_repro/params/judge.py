"""The judge: who says what a latent means."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sae_repro.params.base import Section

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


class Judge(Section):
    """Who answers questions about latents.

    `http` asks only for what no earlier run has recorded, so a complete record needs neither key
    nor network; `replay` never asks. What another kind reads may stay: one word switches.
    """

    kind: Literal["concepts", "http", "replay"] = Field(
        "concepts",
        description="concepts: the text's own labels; http: a language model behind an "
        "OpenAI-compatible endpoint; replay: only answers recorded earlier",
    )
    concept_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.7, description="concepts: share of a latent's contexts that its label must reach"
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

    @model_validator(mode="after")
    def _the_kind_has_what_it_reads(self) -> Self:
        if self.kind != "concepts" and self.model is None:
            raise ValueError(f"kind: {self.kind} needs model")
        if self.kind == "http" and self.base_url is None:
            raise ValueError("kind: http needs base_url")
        return self
