"""A row per value of the four axes of an SAE: activation × penalty × prefixes × revival.

The row of a value holds every fact about it that decides a result and is no formula: code reads
the row and never compares names. Formulas are keyed by the same names in
`sae_repro.autoencoders`, names for tables in `params.axis_labels`.

    ACTIVATIONS["batchtopk"].threshold  # 'calibrated'
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, TypeVar


@dataclass(frozen=True)
class Row:
    """A value of an axis: the facts that rows of all axes have."""

    name: str
    """The value as params.yaml spells it."""
    description: str = field(kw_only=True)
    """Its effect in a phrase; no part of the code that decides a result (`syntax`)."""
    reads: tuple[str, ...] = field(default=(), kw_only=True)
    """The fields of `Cell` that are read with this value, and not with every other."""


@dataclass(frozen=True)
class Architecture:
    """An SAE at inference, by the name that SAELens gives it in cfg.json."""

    name: str
    activation: str
    """The activation that an imported SAE of this architecture counts as."""
    extra: tuple[str, ...] = ()
    """Tensors per latent beside W_enc, b_enc and W_dec."""
    b_enc_name: str = "b_enc"
    """The name of b_enc in the file."""
    reads_k: bool = False
    """Whether encoding needs k."""
    latents_compete: bool = False
    """Whether a latent's z depends on the other latents: then none can be encoded alone, and
    norms of decoder rows can't be folded into the encoder without changing what fires."""
    in_saelens: bool = True
    """Whether SAELens has this architecture under this name."""
    transcoder_in_saelens: bool = False
    """Whether SAELens has transcoders of this architecture."""

    def transcoder(self, *, skip: bool) -> str:
        """The name in cfg.json of a transcoder that encodes so; SAELens's where it has one."""
        prefix = "" if self.name == "standard" else f"{self.name}_"
        return f"{prefix}{'skip_' if skip else ''}transcoder"


@dataclass(frozen=True, kw_only=True)
class Activation(Row):
    """An activation: the function from u to z."""

    architecture: str
    """Its architecture at inference: a name in `ARCHITECTURES`."""
    l0_set_by: Literal["k", "penalty"]
    threshold: Literal["none", "trained", "calibrated"] = "none"
    """Source of the saved threshold: training, or calibration tokens after it."""
    gated: bool = False
    """Whether u is a gate's pre-activation π: penalties and auxiliary losses see max(π, 0)."""
    loss_reads: tuple[str, ...] = ()
    """Of `reads`, what the loss alone reads: no SAE before training depends on it."""

    @property
    def reads_untrained(self) -> tuple[str, ...]:
        """Of `reads`, what decides the SAE before training."""
        return tuple(name for name in self.reads if name not in self.loss_reads)

    @property
    def extra(self) -> tuple[str, ...]:
        """Trained tensors per latent beside W_enc, b_enc and W_dec."""
        saved = ARCHITECTURES[self.architecture].extra
        calibrated = {"threshold"} if self.threshold == "calibrated" else set()
        return tuple(name for name in saved if name not in calibrated)


@dataclass(frozen=True, kw_only=True)
class Penalty(Row):
    """A sparsity penalty on z."""

    counts: bool = False
    """Whether it counts the latents above their threshold, which must be trained then."""
    decoder: Literal["unit_norm", "free"] | None = None
    """The only decoder it makes sense with; None: both."""
    needs_target_l0: bool = False
    """Whether target_l0 is a part of its formula: λ stays, no controller moves it."""
    initial_norm: float = 1.0
    """Norm of the decoder's rows at the start."""


@dataclass(frozen=True, kw_only=True)
class Prefixes(Row):
    """A choice of the truncations of z that must reconstruct x too."""

    published: bool = False
    """Whether it repeats published code, which is allowed what the schema refuses otherwise."""
    by_token: bool = False
    """Whether errors follow what fires on each token, in one cumulative pass over it: needs k."""


@dataclass(frozen=True, kw_only=True)
class Revival(Row):
    """A method of reviving dead latents."""

    resamples: bool = False
    """Whether dead latents get new weights at set steps."""
    auxiliary: bool = False
    """Whether dead latents learn from a loss of their own."""
    patience: Literal["resample_every", "dead_tokens"] | None = None
    """The field that says how long a latent is silent before it is revived: a number of steps, or
    of tokens."""
    published: bool = False
    """As in `Prefixes`."""


R = TypeVar("R", Architecture, Activation, Penalty, Prefixes, Revival)


def _by_name(*rows: R) -> dict[str, R]:
    return {row.name: row for row in rows}


ARCHITECTURES = _by_name(
    Architecture("standard", "relu", transcoder_in_saelens=True),
    Architecture("topk", "topk", reads_k=True, latents_compete=True),
    Architecture("jumprelu", "jumprelu", extra=("threshold",), transcoder_in_saelens=True),
    Architecture("gated", "gated", extra=("b_mag", "r_mag"), b_enc_name="b_gate"),
)

ACTIVATIONS = _by_name(
    Activation(
        "relu",
        description="max(u, 0)",
        architecture="standard",
        l0_set_by="penalty",
    ),
    Activation(
        "topk",
        description="the k largest u·‖d‖ of each token",
        architecture="topk",
        l0_set_by="k",
        reads=("k",),
    ),
    Activation(
        "batchtopk",
        description="the k·N largest u·‖d‖ of a batch of N tokens; at inference a threshold",
        architecture="jumprelu",
        l0_set_by="k",
        reads=("k",),
        threshold="calibrated",
    ),
    Activation(
        "jumprelu",
        description="u where it is above a trained threshold θ",
        architecture="jumprelu",
        l0_set_by="penalty",
        reads=("jumprelu_bandwidth",),
        threshold="trained",
    ),
    Activation(
        "gated",
        description="a magnitude where a gate is open",
        architecture="gated",
        l0_set_by="penalty",
        reads=("gated_auxiliary",),
        loss_reads=("gated_auxiliary",),
        gated=True,
    ),
)

_WEIGHED = ("lambda_", "lambda_warmup", "target_l0")

PENALTIES = _by_name(
    Penalty("none", description="no penalty"),
    Penalty("l1", description="Σ z", reads=_WEIGHED, decoder="unit_norm"),
    Penalty(
        "l1_decoder_norm", description="Σ z‖d‖", reads=_WEIGHED, decoder="free", initial_norm=0.1
    ),
    Penalty("log", description="Σ [ln(z‖d‖ + .1) − ln .1]", reads=_WEIGHED),
    Penalty("tanh", description="Σ tanh(4 z‖d‖)", reads=_WEIGHED),
    Penalty("sqrt", description="Σ [√(z‖d‖ + 1e-4) − .01]", reads=_WEIGHED),
    Penalty("l0", description="the latents above their threshold", reads=_WEIGHED, counts=True),
    Penalty(
        "l0_quadratic",
        description="(L0/L0* − 1)²",
        reads=_WEIGHED,
        counts=True,
        needs_target_l0=True,
    ),
)

_DRAWN = ("n_prefixes", "prefix_alpha", "order")

PREFIXES = _by_name(
    Prefixes("none", description="the full code alone"),
    Prefixes(
        "fixed",
        description="the same lengths on every step",
        reads=("prefix_shares", "prefix_weights", "order"),
    ),
    Prefixes("random", description="lengths drawn from a truncated Pareto", reads=_DRAWN),
    Prefixes(
        "random_published",
        description="lengths drawn with the published code's weaker tilt to short ones",
        reads=_DRAWN,
        published=True,
    ),
    Prefixes(
        "all",
        description="every length 1 … K, of topk and batchtopk",
        reads=("order",),
        by_token=True,
    ),
    Prefixes(
        "hierarchical",
        description="one SAE for all k: the k' ≤ k strongest of what fires",
        reads=("prefix_k", "prefix_weights"),
        by_token=True,
    ),
)

_RESAMPLING = ("resample_every", "resample_until", "resample_tokens", "resample_bias")

REVIVALS = _by_name(
    Revival("none", description="nothing"),
    Revival(
        "resample",
        description="new directions towards tokens with a large loss, p ∝ loss²",
        reads=_RESAMPLING,
        resamples=True,
        patience="resample_every",
    ),
    Revival(
        "resample_published",
        description="as for the published GPT-2 grid: p ∝ loss, uncentred unit directions, "
        "Adam forgotten",
        reads=_RESAMPLING,
        resamples=True,
        patience="resample_every",
        published=True,
    ),
    Revival(
        "auxk",
        description="dead latents learn what the living ones leave over",
        reads=("auxk_coefficient", "dead_tokens"),
        auxiliary=True,
        patience="dead_tokens",
    ),
)

AXES: Mapping[str, Mapping[str, Row]] = {
    "activation": ACTIVATIONS,
    "penalty": PENALTIES,
    "prefixes": PREFIXES,
    "revival": REVIVALS,
}
"""The rows of each axis, by the field of `Cell` that chooses among them."""


def meanings(axis: str) -> str:
    """`name (meaning), …` of the values of an axis, for the description of its field."""
    return ", ".join(f"{row.name} ({row.description})" for row in AXES[axis].values())


@cache  # asked for each field of each cell
def readers(field: str) -> tuple[str, tuple[str, ...]] | None:
    """(axis, its values with which `field` of a cell is read); None where it is always read."""
    for axis, rows in AXES.items():
        names = tuple(row.name for row in rows.values() if field in row.reads)
        if names:
            return axis, names
    return None
