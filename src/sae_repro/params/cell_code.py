"""The objective of a cell: how z comes from x, what keeps it sparse, and the error of x̂."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sae_repro.params import axes
from sae_repro.params.base import Count, Fraction, Section
from sae_repro.params.fp32 import InFp32, Positive

if TYPE_CHECKING:
    Activation = str
    Penalty = str
else:  # the rows are the one list of names; a type checker wants it spelled out
    Activation = Literal[tuple(axes.ACTIVATIONS)]
    Penalty = Literal[tuple(axes.PENALTIES)]


class CellCode(Section):
    """The part of a cell about its code z and what the code is trained on."""

    activation: Activation = Field(
        "relu", description=f"how z comes from x: {axes.meanings('activation')}"
    )
    k: Count | None = Field(
        None, description="latents per token (topk) or per token on average (batchtopk), 1 … K"
    )
    jumprelu_bandwidth: Annotated[float, Field(gt=0, lt=1), InFp32] = Field(
        1e-3,
        description="jumprelu: width ε of the straight-through kernel, and every θ's start, as a "
        "fraction of the median norm of the inputs trained on",
    )
    gated_auxiliary: Literal["frozen", "trained"] = Field(
        "frozen",
        description="gated: whether the loss by which the gate learns, the reconstruction from "
        "max(π, 0), sees the decoder as a constant (frozen, as the paper) or trains it too "
        "(trained, as SAELens)",
    )
    apply_b_dec_to_input: bool = Field(True, description="whether the encoder sees x − b_dec")

    penalty: Penalty = Field(
        "none",
        description=f"what keeps z sparse: {axes.meanings('penalty')}; l0 and l0_quadratic with "
        "a trained threshold (jumprelu) only",
    )
    lambda_: Positive | None = Field(
        None,
        alias="lambda",
        description="weight of the penalty, > 0; its scale depends on `reconstruction` and, of "
        "inputs with normalisation: none, on their norm; with target_l0, where the controller "
        "starts",
    )
    target_l0: Positive | None = Field(
        None,
        description="target latents per token: λ is steered to hold it (l0_quadratic: the L0* of "
        "the penalty, λ stays)",
    )
    lambda_warmup: Fraction = Field(
        0.0, description="fraction of the steps over which λ rises linearly from 0"
    )
    reconstruction: Literal["mean", "sum"] = Field(
        "mean",
        description="squared error averaged (mean, as the published GPT-2 grids) or summed "
        "over the D dimensions",
    )
