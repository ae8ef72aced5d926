"""One cell of the grid: one sparse autoencoder and how it is optimised.

An SAE is four independent choices: activation × penalty × prefixes × revival. A cell that sets a
field which its other choices leave unread is refused, so that no value in params.yaml is idle.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from sae_repro.params.base import Count, Section, Share

Activation = Literal["relu", "topk", "batchtopk"]
Penalty = Literal["none", "l1", "l1_decoder_norm"]
Prefixes = Literal["none", "fixed", "random"]
Revival = Literal["none", "resample", "auxk"]

MATRYOSHKA_SHARES = (1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2)


class Cell(Section):
    """An SAE of width K = expansion · D on one hook. Formulas: docs of `sae_repro.autoencoders`."""

    hook: str | None = Field(
        None, description="the hook whose activations it reads; default: the first of extract.hooks"
    )
    expansion: Annotated[float, Field(gt=0, le=1024)] = Field(
        description="K / D, latents per activation dimension; K is rounded down"
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        0, description="varies initial weights, data order, prefixes and resampling of this cell"
    )

    activation: Activation = Field("relu", description="how z comes from x: relu, topk, batchtopk")
    k: Count | None = Field(
        None, description="latents per token (topk) or per token on average (batchtopk), 1 … K"
    )
    apply_b_dec_to_input: bool = Field(True, description="whether the encoder sees x − b_dec")

    penalty: Penalty = Field("none", description="what keeps z sparse: none, l1, l1_decoder_norm")
    lambda_: Annotated[float, Field(gt=0)] | None = Field(
        None,
        alias="lambda",
        description="weight of the penalty, > 0; its scale depends on `reconstruction`",
    )
    lambda_warmup: Share = Field(
        0.0, description="share of the steps over which λ rises linearly from 0"
    )
    reconstruction: Literal["mean", "sum"] = Field(
        "mean",
        description="squared error averaged (mean, as the published GPT-2 grids) or summed "
        "over the D dimensions",
    )

    prefixes: Prefixes = Field(
        "none", description="which truncations of z must reconstruct x too: none, fixed, random"
    )
    prefix_shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        MATRYOSHKA_SHARES, description="fixed: the groups' shares of K; they sum to 1"
    )
    n_prefixes: Annotated[int, Field(ge=2)] = Field(
        10, description="random: lengths per step, the full K always among them"
    )
    prefix_alpha: Annotated[float, Field(gt=0)] = Field(
        0.5, description="random: exponent α of the truncated Pareto p(l) ∝ l^−α − (l+1)^−α"
    )

    revival: Revival = Field(
        "none", description="what brings dead latents back: none, resample, auxk"
    )
    resample_every: Count = Field(
        25_000,
        description="resample: steps between resamplings, and the window in which a latent "
        "must fire to count as alive",
    )
    resample_until: Share = Field(
        0.8, description="resample: share of the steps after which none happens any more"
    )
    resample_tokens: Count = Field(
        100_000, description="resample: tokens whose losses weight the draw (or all there are)"
    )
    resample_bias: float = Field(0.0, description="resample: b_enc of a resampled latent")
    auxk_coefficient: Annotated[float, Field(gt=0)] = Field(
        1 / 32, description="auxk: weight of the auxiliary loss"
    )
    dead_tokens: Count = Field(
        10_000_000, description="auxk: tokens without firing after which a latent counts as dead"
    )

    decoder: Literal["unit_norm", "free"] = Field(
        "unit_norm", description="rows of W_dec normalised after every step (unit_norm) or free"
    )
    normalisation: Literal["none", "expected_norm"] = Field(
        "none",
        description="one scalar so that E‖x‖² = D (expected_norm), folded into the saved "
        "weights; none for the published grids",
    )
    b_dec_init: Literal["geometric_median", "mean", "zero"] = Field(
        "geometric_median", description="start of b_dec, from ≥ 10,000 training tokens"
    )

    lr: Annotated[float, Field(gt=0)] = Field(1e-3, description="Adam's peak learning rate, > 0")
    lr_warmup: Share = Field(0.05, description="share of the steps with linear warm-up")
    lr_decay: Share = Field(0.2, description="share of the steps, at the end, with linear decay")
    adam_eps: Annotated[float, Field(gt=0)] = Field(1e-8, description="Adam's ε (β = .9, .999)")
    grad_clip: Annotated[float, Field(gt=0)] | None = Field(
        1.0, description="bound on the gradient's global norm; null: no clipping"
    )

    @model_validator(mode="after")
    def _four_axes_fit(self) -> Self:
        for field, axis, values in _READ_WHEN:
            value = getattr(self, axis)
            if field in self.model_fields_set and value not in values:
                name = type(self).model_fields[field].alias or field
                raise ValueError(
                    f"{name} is read only with {axis}: {' | '.join(values)}, here {axis}: {value}; "
                    f"delete {name} or change {axis}"
                )
        for broken, message in _RULES:
            if broken(self):
                raise ValueError(message)
        return self

    def width(self, d_in: int) -> int:
        """K, the number of latents on activations of `d_in` dimensions."""
        return int(self.expansion * d_in)

    def identity(self) -> dict[str, Any]:
        """The choices that differ from the defaults: a new field with a default keeps it."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


# (field, axis, values of the axis with which the field is read)
_READ_WHEN: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("k", "activation", ("topk", "batchtopk")),
    ("lambda_", "penalty", ("l1", "l1_decoder_norm")),
    ("lambda_warmup", "penalty", ("l1", "l1_decoder_norm")),
    ("prefix_shares", "prefixes", ("fixed",)),
    ("n_prefixes", "prefixes", ("random",)),
    ("prefix_alpha", "prefixes", ("random",)),
    ("resample_every", "revival", ("resample",)),
    ("resample_until", "revival", ("resample",)),
    ("resample_tokens", "revival", ("resample",)),
    ("resample_bias", "revival", ("resample",)),
    ("auxk_coefficient", "revival", ("auxk",)),
    ("dead_tokens", "revival", ("auxk",)),
)

_RULES: tuple[tuple[Callable[[Cell], bool], str], ...] = (
    (
        lambda c: c.activation in ("topk", "batchtopk") and c.k is None,
        "activation topk and batchtopk need k, the latents per token",
    ),
    (
        lambda c: c.activation in ("topk", "batchtopk") and c.penalty != "none",
        "k already sets the sparsity of topk and batchtopk: penalty must be none",
    ),
    (
        lambda c: c.activation == "relu" and c.penalty == "none",
        "nothing keeps relu sparse: set penalty to l1 (decoder: unit_norm) or l1_decoder_norm "
        "(decoder: free)",
    ),
    (
        lambda c: c.penalty != "none" and c.lambda_ is None,
        "a penalty needs lambda, its weight (> 0)",
    ),
    (
        lambda c: c.penalty == "l1" and c.decoder == "free",
        "penalty l1 with a free decoder shrinks z and grows W_dec for nothing: use decoder: "
        "unit_norm, or penalty: l1_decoder_norm",
    ),
    (
        lambda c: c.penalty == "l1_decoder_norm" and c.decoder == "unit_norm",
        "with unit-norm rows l1_decoder_norm is l1: write penalty: l1, or decoder: free",
    ),
    (
        lambda c: abs(sum(c.prefix_shares) - 1) > 1e-6,
        "prefix_shares must sum to 1",
    ),
    (
        lambda c: c.lr_warmup + c.lr_decay > 1,
        "lr_warmup + lr_decay must be ≤ 1: they are shares of the same steps",
    ),
)
