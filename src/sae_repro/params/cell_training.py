"""The training of a cell: its decoder's rows, the scale of its inputs, and Adam."""

from typing import Literal

from pydantic import Field

from sae_repro.params.base import Count, Fraction, Section
from sae_repro.params.fp32 import Positive


class CellTraining(Section):
    """The part of a cell about how it is initialised and optimised."""

    decoder: Literal["unit_norm", "free"] = Field(
        "unit_norm", description="rows of W_dec normalised after every step (unit_norm) or free"
    )
    frozen: Literal["decoder", "soft_decoder", "encoder"] | None = Field(
        None,
        description="a control: what stays random, as at the start, while the rest is trained: "
        "decoder (W_dec), soft_decoder (each row of W_dec within a cosine of 0.8 of its start) or "
        "encoder (W_enc); Korznikov et al. 2026, arXiv:2602.14111",
    )
    normalisation: Literal["none", "expected_norm"] = Field(
        "expected_norm",
        description="one scalar by which training multiplies all inputs, so that their median norm "
        "is √D (expected_norm; of a crosscoder one per hook, for its own D), and which is folded "
        "into the saved weights; λ, lr and grad_clip then mean the same on every model. none for "
        "the published grids",
    )
    b_dec_init: Literal["geometric_median", "mean", "zero"] = Field(
        "geometric_median", description="start of b_dec, from ≥ 10,000 training tokens"
    )

    tokens: Count | None = Field(
        None,
        description="training tokens of this cell, of which whole batches are taken; more than its "
        "hook has are further epochs; null: train.epochs × all that its hook has",
    )
    lr: Positive | None = Field(
        None,
        description="Adam's peak learning rate, > 0; null: 0.08 / √D, by which the entries of a "
        "unit row, about 1 / √D, change by the same fraction at every D",
    )
    lr_warmup: Fraction = Field(0.05, description="fraction of the steps with linear warm-up")
    lr_decay: Fraction = Field(
        0.2, description="fraction of the steps, at the end, with linear decay"
    )
    adam_eps: Positive = Field(1e-8, description="Adam's ε (β = .9, .999)")
    grad_clip: Positive | None = Field(
        1e-2,
        description="bound on the gradient's global norm; null: no clipping. So small a bound acts "
        "on nearly every step: the first gradients, when half of the latents fire, would otherwise "
        "fill Adam's second moments and slow the next thousand steps",
    )
