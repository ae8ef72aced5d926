"""The penalties' values and slopes by hand, on either layout.

`PHI` has the formulas of `autoencoders.penalties.PHI` under the same names, but those that count:
they have no slope in z.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from sae_repro.autoencoders.penalties import LOG_OFFSET, SQRT_OFFSET, TANH_SLOPE
from sae_repro.training.steps.bags import sum_rows
from sae_repro.training.steps.layouts import Layout
from sae_repro.training.steps.workspace import Floats


class Penalised(NamedTuple):
    """Σ φ over entries, ∂/∂z at the entries (a number where it is one), ∂/∂‖d‖ [K] of free rows."""

    value: float
    slope: Floats | float
    norm_slope_k: Floats | None


def penalised(
    name: str, layout: Layout, z: Floats, *, norm_k: Floats | None, fraction_k: Floats | None
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
        total = phi.sum() if phi.ndim == 1 else sum_rows(phi).sum()
        return Penalised(float(total), slope, norm_slope_k)
    value = float((layout.sum_k(phi) * fraction_k).sum())
    if norm_slope_k is not None:
        norm_slope_k *= fraction_k
    return Penalised(value, slope * layout.per_latent(fraction_k), norm_slope_k)


def _linear(a: Floats) -> tuple[Floats, Floats | float]:
    return a, 1.0


def _log(a: Floats) -> tuple[Floats, Floats | float]:
    # in this form φ(0) is 0 and not a rounding error for each entry
    # torch's: numpy takes the system's, which rounds by the version of its C library
    return torch.from_numpy(a / LOG_OFFSET).log1p_().numpy(), 1 / (a + LOG_OFFSET)


def _tanh(a: Floats) -> tuple[Floats, Floats | float]:
    tanh = torch.from_numpy(TANH_SLOPE * a).tanh_().numpy()
    return tanh, TANH_SLOPE * (1 - tanh * tanh)


def _sqrt(a: Floats) -> tuple[Floats, Floats | float]:
    root = np.sqrt(a + SQRT_OFFSET)
    return root - SQRT_OFFSET**0.5, 0.5 / root


PHI: dict[str, Callable[[Floats], tuple[Floats, Floats | float]]] = {
    "l1": _linear,
    "l1_decoder_norm": _linear,
    "log": _log,
    "tanh": _tanh,
    "sqrt": _sqrt,
}
"""By penalty: (φ, dφ/da) at a = z‖d‖ ≥ 0."""
