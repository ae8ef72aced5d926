"""The penalties' values and slopes by hand, on either layout.

`PHI` has the formulas of `autoencoders.penalties.PHI` under the same names, but those that count:
they have no slope in z.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sae_repro.autoencoders.penalties import LOG_OFFSET, SQRT_OFFSET, TANH_SLOPE
from sae_repro.training.steps.layouts import Layout


class Penalised(NamedTuple):
    """Σ φ over entries, ∂/∂z at the entries (a number where it is one), ∂/∂‖d‖ [K] of free rows."""

    value: float
    slope: Tensor | float
    norm_slope_k: Tensor | None


def penalised(
    name: str, layout: Layout, z: Tensor, *, norm_k: Tensor | None, fraction_k: Tensor | None
) -> Penalised:
    """The penalty `name` of a code at its entries.

    `norm_k` is ‖d‖ where the rows of W_dec aren't unit, `fraction_k` the fraction of the prefixes
    that hold a latent (None: all of them do).
    """
    a = z if norm_k is None else z * layout.per_latent(norm_k)
    phi, slope = PHI[name](a)
    norm_slope_k = None
    if norm_k is not None:
        norm_slope_k = layout.sum_k(slope * z)
        slope = slope * layout.per_latent(norm_k)
    if fraction_k is None:
        return Penalised(float(phi.sum()), slope, norm_slope_k)
    value = float((layout.sum_k(phi) * fraction_k).sum())
    if norm_slope_k is not None:
        norm_slope_k.mul_(fraction_k)
    return Penalised(value, slope * layout.per_latent(fraction_k), norm_slope_k)


def _linear(a: Tensor) -> tuple[Tensor, Tensor | float]:
    return a, 1.0


def _log(a: Tensor) -> tuple[Tensor, Tensor | float]:
    # in this form φ(0) is 0 and not a rounding error for each entry
    return (a / LOG_OFFSET).log1p_(), (a + LOG_OFFSET).reciprocal_()


def _tanh(a: Tensor) -> tuple[Tensor, Tensor | float]:
    tanh = torch.tanh(TANH_SLOPE * a)
    return tanh, tanh.square().neg_().add_(1).mul_(TANH_SLOPE)


def _sqrt(a: Tensor) -> tuple[Tensor, Tensor | float]:
    root = (a + SQRT_OFFSET).sqrt()
    return root - SQRT_OFFSET**0.5, root.reciprocal().mul_(0.5)


PHI: dict[str, Callable[[Tensor], tuple[Tensor, Tensor | float]]] = {
    "l1": _linear,
    "l1_decoder_norm": _linear,
    "log": _log,
    "tanh": _tanh,
    "sqrt": _sqrt,
}
"""By penalty: (φ, dφ/da) at a = z‖d‖ ≥ 0."""
