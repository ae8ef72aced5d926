"""The prefixes of a cell: which truncations of its code must reconstruct x too."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sae_repro.params import axes
from sae_repro.params.base import Count, Many, Section
from sae_repro.params.fp32 import InFp32

if TYPE_CHECKING:
    Prefixes = str
else:  # the rows are the one list of names; a type checker wants it spelled out
    Prefixes = Literal[tuple(axes.PREFIXES)]

MATRYOSHKA_SHARES = (1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2)


class CellPrefixes(Section):
    """The part of a cell about prefixes of its code."""

    prefixes: Prefixes = Field(
        "none",
        description=f"which truncations of z must reconstruct x too: {axes.meanings('prefixes')}",
    )
    prefix_shares: Many[Annotated[float, Field(gt=0, le=1)]] = Field(
        MATRYOSHKA_SHARES, description="fixed: the groups' fractions of K; they sum to 1"
    )
    prefix_k: Annotated[Many[Count], Field(min_length=1)] | None = Field(
        None, description="hierarchical: the k', rising to k; default: 1, 2, … k"
    )
    prefix_weights: (
        Annotated[Many[Annotated[float, Field(gt=0), InFp32]], Field(min_length=1)] | None
    ) = Field(
        None,
        description="fixed, hierarchical: each prefix's part in the loss relative to the others, "
        "the shortest first; their sum counts as 1; default: all the same",
    )
    n_prefixes: Annotated[int, Field(ge=2, le=10**6)] = Field(
        10, description="random, random_published: lengths per step, the full K always among them"
    )
    prefix_alpha: Annotated[float, Field(ge=1e-3, le=20)] = Field(
        0.5,
        description="exponent α of the draw; random: truncated Pareto p(l) ∝ l^−α − (l+1)^−α; "
        "random_published: p(l) ∝ l^α − (l−1)^α",
    )
    order: Literal["none", "contribution"] = Field(
        "none",
        description="whether latents are re-sorted after each step by a running mean of their "
        "squared activation, so that prefixes hold the largest contributors",
    )
