"""One cell of the grid: one sparse autoencoder and how it is optimised.

An SAE is four independent choices: activation × penalty × prefixes × revival. A cell that sets a
field which its other choices leave unread is refused, so that no value in params.yaml is idle
(`params.cell_rules`).
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sae_repro.params import axes
from sae_repro.params.base import Count, Fraction, Many, Place, Section, Seed, Sha256, Text
from sae_repro.params.cell_rules import faults

if TYPE_CHECKING:
    Activation = str
    Penalty = str
    Prefixes = str
    Revival = str
else:  # the rows are the one list of names; a type checker wants it spelled out
    Activation = Literal[tuple(axes.ACTIVATIONS)]
    Penalty = Literal[tuple(axes.PENALTIES)]
    Prefixes = Literal[tuple(axes.PREFIXES)]
    Revival = Literal[tuple(axes.REVIVALS)]

SMALLEST, LARGEST = 1.2e-38, 3.4e38  # of fp32: below it is 0 or loses digits, above it is infinite


def _in_fp32(value: float) -> float:
    if value and not SMALLEST <= abs(value) <= LARGEST:
        raise ValueError(
            f"{value:g} is no number in fp32, the precision of training; allowed are {SMALLEST:g} "
            f"… {LARGEST:g}"
        )
    return value


InFp32 = AfterValidator(_in_fp32)
Positive = Annotated[float, Field(gt=0), InFp32]

LR_OF_UNIT_ROWS = 0.08  # chosen by measurement: reports/benchmarks/defaults.md
MATRYOSHKA_SHARES = (1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2)


class Cell(Section):
    """An SAE of width K = expansion · D on one hook. Formulas: docs of `sae_repro.autoencoders`."""

    hook: Text | None = Field(
        None,
        description="the hook whose activations it reads; default: the first of extract.hooks; "
        "blocks.0-5.… and blocks.0,2.… make a cell <name>-layer<n> for each layer",
    )
    target_hook: Text | None = Field(
        None,
        description="a transcoder: the hook whose activations it predicts from those of `hook`, "
        "instead of these themselves; among extract.hooks, of any width. b_dec and rows of W_dec "
        "lie there",
    )
    skip: bool = Field(
        False, description="target_hook: adds x·W_skip, trained too and never penalised"
    )
    import_: Place | None = Field(
        None,
        alias="import",
        description="an SAE trained elsewhere instead: a folder (SAELens, dictionary_learning or "
        "sparsify), relative to params.yaml, or release:sae_id of SAELens; takes sha256 and hook "
        "beside it, nothing else",
    )
    sha256: Sha256 | None = Field(
        None, description="import: of that folder (`sae-repro pin` fills it in)"
    )
    baseline: Literal["neurons", "pca", "untrained"] | None = Field(
        None,
        description="no trained SAE but what one must beat: neurons (the model's own basis, each "
        "dimension above and below its mean), pca (principal directions, likewise; both K = 2 D, "
        "and take hook beside it, nothing else), or untrained (the SAE as training would find it "
        "at the start: takes what decides that, and nothing that only training reads)",
    )
    expansion: Annotated[float, Field(gt=0, le=1024)] = Field(
        1.0, description="K / D, latents per activation dimension; K is rounded down; required"
    )
    seed: Seed = Field(
        0, description="varies initial weights, data order, prefixes and resampling of this cell"
    )
    seeds: Annotated[Many[Seed], Field(min_length=2)] | None = Field(
        None,
        description="instead of seed: one SAE for each of these, the same as a cell of its own "
        "with that seed; tables show mean ± standard deviation over them",
    )

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

    prefixes: Prefixes = Field(
        "none",
        description=f"which truncations of z must reconstruct x too: {axes.meanings('prefixes')}",
    )
    prefix_shares: Many[Annotated[float, Field(gt=0, le=1)]] = Field(
        MATRYOSHKA_SHARES, description="fixed: the groups' fractions of K; they sum to 1"
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
        "is √D (expected_norm), and which is folded into the saved weights; λ, lr and grad_clip "
        "then mean the same on every model. none for the published grids",
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

    @model_validator(mode="after")
    def _four_axes_fit(self) -> Self:
        problems = list(faults(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def width(self, d_in: int) -> int:
        """K, the number of latents on activations of `d_in` dimensions."""
        return 2 * d_in if self.is_basis else int(self.expansion * d_in)

    @property
    def kind(self) -> Literal["trained", "imported", "baseline"]:
        """Origin of its SAE: trained here, imported, or a baseline (a negative control)."""
        if self.import_ is not None:
            return "imported"
        return "trained" if self.baseline is None else "baseline"

    @property
    def is_basis(self) -> bool:
        """Whether its latents are the two ends of D directions that are given, not learnt."""
        return self.baseline in ("neurons", "pca")

    def peak_lr(self, d_in: int) -> float:
        """Adam's peak learning rate on activations of `d_in` dimensions."""
        return self.lr if self.lr is not None else LR_OF_UNIT_ROWS / math.sqrt(d_in)

    def steps(self, batch_size: int, epochs: int, rows: int) -> int:
        """Training steps: whole batches of its `tokens`, or of `epochs` passes over `rows`."""
        if self.tokens is not None:
            return self.tokens // batch_size if rows >= batch_size else 0
        return epochs * (rows // batch_size)

    def members(self) -> dict[str, "Cell"]:
        """Its SAEs by their place in the cell's folder: `.`, or `seed-<n>` for each of `seeds`."""
        if self.seeds is None:
            return {".": self}
        return {
            f"seed-{seed}": self.model_copy(update={"seeds": None, "seed": seed})
            for seed in self.seeds
        }

    @property
    def subtracts_b_dec(self) -> bool:
        """Whether the encoder sees x − b_dec; a transcoder's b_dec lies among its targets."""
        return self.apply_b_dec_to_input and self.target_hook is None

    @property
    def l0_target(self) -> float | None:
        """The target L0, k or target_l0; None where λ alone decides."""
        return self.k if self.k is not None else self.target_l0

    @property
    def steered(self) -> bool:
        """Whether a controller moves λ to hold target_l0."""
        return self.target_l0 is not None and not self.penalty_row.needs_target_l0

    @property
    def resamples(self) -> bool:
        """Whether latents are resampled."""
        return self.revival_row.resamples

    @property
    def activation_row(self) -> axes.Activation:
        """The facts about its activation."""
        return axes.ACTIVATIONS[self.activation]

    @property
    def penalty_row(self) -> axes.Penalty:
        """The facts about its penalty."""
        return axes.PENALTIES[self.penalty]

    @property
    def prefixes_row(self) -> axes.Prefixes:
        """The facts about its prefixes."""
        return axes.PREFIXES[self.prefixes]

    @property
    def revival_row(self) -> axes.Revival:
        """The facts about its revival."""
        return axes.REVIVALS[self.revival]

    @property
    def repeats_published_code(self) -> bool:
        """Whether it is a published recipe, which may combine what is refused otherwise."""
        return self.prefixes_row.published or self.revival_row.published

    def identity(self) -> dict[str, Any]:
        """The choices that differ from the defaults: a new field with a default keeps it."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def saes_by_name(cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """The SAEs of all cells, named as their cell or, of one with several seeds, cell/seed-<n>."""
    return {
        name if place == "." else f"{name}/{place}": sae
        for name, cell in cells.items()
        for place, sae in cell.members().items()
    }
