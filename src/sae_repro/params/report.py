"""The report that people look at, and the explorer of latents."""

from typing import Annotated

from pydantic import Field

from sae_repro.params.base import Count, Many, Section, Text


class Report(Section):
    """The results as one page, and SAEs' latents as static files, for a browser."""

    explorer: Many[Text] | None = Field(
        None,
        description="cells whose latents the explorer shows, by pattern of their names; * stands "
        "for any characters; default: those whose target L0 is the middle one of "
        "compare.matched_l0; []: none",
    )
    seeds: Count = Field(2, description="of a cell with several seeds, how many SAEs it shows")
    contexts: Count = Field(
        5, description="contexts of the largest activations it shows per latent, of those evaluated"
    )
    contexts_per_quantile: Annotated[int, Field(ge=0, le=100)] = Field(
        1, description="contexts it shows per activation quantile and latent, of those evaluated"
    )
    chunk: Annotated[int, Field(ge=1, le=100_000)] = Field(
        256, description="latents per file of the explorer's data: what a page of one loads"
    )
