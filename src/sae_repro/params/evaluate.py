"""Evaluation of every SAE: the metrics, and the data behind them."""

from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import Field

from sae_repro.params.base import Count, Device, Many, Place, Section, Sha256, Text

Chosen = Literal[
    "monosemanticity",
    "structure",
    "dictionary",
    "references",
    "consistency",
    "ngram",
    "ablation",
    "steering",
]
BETWEEN_SEEDS: tuple[Chosen, ...] = ("consistency",)
"""Those that compare the SAEs of a cell with several seeds."""


class ConceptLabels(Section):
    """Labels of a study's own, pinned by their content."""

    path: Place = Field(
        description="parquet, csv or jsonl, relative to params.yaml: a row per span of tokens, "
        "with its document (the row of the text's source, from 0 over all its files in order), "
        "start, end (token positions in it, end exclusive) and concept (a name)"
    )
    sha256: Sha256 = Field(description="of the file (`sae-repro pin` fills it in)")


class Evaluate(Section):
    """One SAE on held-out activations."""

    batch_size: Count = Field(
        4096, description="activations per pass; changes values by rounding only"
    )
    dead_threshold: Annotated[float, Field(ge=0)] = Field(
        0.07, description="a latent whose largest z stays below counts as dead_fraction_below"
    )
    fidelity_tokens: Count = Field(
        20_000,
        description="validation tokens on which the language model is run with the SAE in place",
    )
    metrics: Many[Chosen] = Field(
        ("monosemanticity", "structure", "dictionary", "references", "consistency"),
        description="what is measured beside firing, reconstruction and fidelity: monosemanticity, "
        "each latent against a bank of concepts; structure, how latents divide concepts "
        "(splitting, holes, absorption, coverage, probes); dictionary, nearest atoms and "
        "description length; references, correlation with small SAEs; consistency, which latents "
        "the seeds of a cell share; and, slower, ngram, ablation and steering, which run the "
        "language model (steering: on corpus.source.kind: stories, hooks of the residual stream); "
        "[] for none",
    )
    only: dict[Text, Many[Chosen]] | None = Field(
        None,
        description="fewer of them for some cells, by pattern of their names: `vanilla-x*: "
        "[monosemanticity]`; * stands for any characters, the first pattern that fits counts",
    )
    structure_tokens: Annotated[int, Field(ge=1000, le=10**12)] = Field(
        20_000, description="structure: validation tokens in its sample of whole documents"
    )
    references: Annotated[Many[Count], Field(min_length=1)] = Field(
        (30, 100, 300), description="references: widths K of the small SAEs trained for it"
    )
    concepts: ConceptLabels | None = Field(
        None, description="labels of your own, which join that bank"
    )
    surface: bool = Field(
        True,
        description="whether that bank holds what a text shows on its surface: token identity, "
        "looks, position, frequency; SAEs on random weights find these, too",
    )
    top_contexts: Count = Field(10, description="contexts of the largest activations per latent")
    quantiles: Annotated[int, Field(ge=2, le=20)] = Field(
        5, description="activation quantiles from which contexts are sampled"
    )
    contexts_per_quantile: Count = Field(3, description="contexts sampled per quantile and latent")
    context_tokens: Annotated[int, Field(ge=0, le=128)] = Field(
        12, description="tokens shown before and after the activating one"
    )
    threads: Annotated[int, Field(ge=1, le=64)] = Field(1, description="CPU threads per cell")
    device: Device = Field("cpu", description="cpu, cuda or cuda:N")

    def for_cell(self, name: str) -> Self:
        """These settings for one cell, whose metrics may be fewer."""
        fitting = (
            chosen for pattern, chosen in (self.only or {}).items() if fnmatchcase(name, pattern)
        )
        return self.model_copy(update={"metrics": next(fitting, self.metrics), "only": None})
