"""The revival of a cell: what brings its dead latents back."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sae_repro.params import axes
from sae_repro.params.base import Count, Fraction, Section
from sae_repro.params.fp32 import InFp32, Positive

if TYPE_CHECKING:
    Revival = str
else:  # the rows are the one list of names; a type checker wants it spelled out
    Revival = Literal[tuple(axes.REVIVALS)]


class CellRevival(Section):
    """The part of a cell about latents that no longer fire."""

    revival: Revival = Field(
        "none",
        description=f"what brings dead latents back: {axes.meanings('revival')}",
    )
    resample_every: Count = Field(
        25_000,
        description="resample: steps between resamplings, and the window in which a latent "
        "must fire to count as alive",
    )
    resample_until: Fraction = Field(
        0.8, description="resample: fraction of the steps after which none happens any more"
    )
    resample_tokens: Count = Field(
        100_000, description="resample: tokens whose losses weight the draw (or all there are)"
    )
    resample_bias: Annotated[float, InFp32] | None = Field(
        None,
        description="resample: b_enc of a resampled latent; null: 0, and −0.05 with "
        "resample_published",
    )
    auxk_coefficient: Positive = Field(1 / 32, description="auxk: weight of the auxiliary loss")
    dead_tokens: Count = Field(
        10_000_000, description="auxk: tokens without firing after which a latent counts as dead"
    )
