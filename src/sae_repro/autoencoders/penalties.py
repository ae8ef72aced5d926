"""The penalties that keep z sparse: means over tokens, weighed by the prefixes."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sae_repro.autoencoders.activations import Code, decoder_norm, step
from sae_repro.autoencoders.prefixes import prefix_fraction, prefix_weights
from sae_repro.autoencoders.weights import Weights
from sae_repro.params import Cell

LOG_OFFSET = 0.1
TANH_SLOPE = 4.0
SQRT_OFFSET = 1e-4  # a bare square root has NaN gradients at 0


def penalty(
    cell: Cell, weights: Weights, code: Code, *, lengths: list[int], epsilon: float
) -> Tensor:
    """The penalty without its λ: the mean over prefixes of Σ_k φ(z_k) on the prefix's latents.

    l1               Σ z_k
    l1_decoder_norm  Σ z_k‖d_k‖, of a crosscoder Σ z_k Σ_h ‖d_k,h‖ over its hooks h
    log              Σ [ln(z_k‖d_k‖ + .1) − ln .1]
    tanh             Σ tanh(4 z_k‖d_k‖)
    sqrt             Σ [√(z_k‖d_k‖ + 1e-4) − .01]
    l0               Σ 1[u_k > θ_k]
    l0_quadratic     (L0/L0* − 1)², once, on the full code

    For a gated SAE max(π, 0) stands in z's place. Under `unit_norm` ‖d_k‖ is 1. The sum over hooks
    is that of Lindsey et al. 2024, "Sparse Crosscoders", by which a latent that writes to one hook
    costs less than one of the same norm that is spread over several.
    """
    n = len(code.u_nk)
    phi_nk = PHI[cell.penalty](cell, weights, code, epsilon)
    if cell.penalty_row.needs_target_l0:
        assert cell.target_l0 is not None  # the schema sees to it
        return (phi_nk.sum() / n / cell.target_l0 - 1).square()
    per_latent = phi_nk.sum(0)
    weight = None if len(lengths) == 1 else _fraction(cell, lengths, phi_nk)
    if cell.penalty == "l1_decoder_norm":
        norm = weights.norm_over_hooks()
        weight = norm if weight is None else weight * norm
    # no matrix product: under autocast that would round to 8 bits
    return (per_latent if weight is None else per_latent * weight).sum() / n


def _fraction(cell: Cell, lengths: list[int], phi_nk: Tensor) -> Tensor:
    return prefix_fraction(lengths, phi_nk, prefix_weights(cell, phi_nk.shape[1]))


def _z(cell: Cell, weights: Weights, code: Code, epsilon: float) -> Tensor:
    return torch.relu(code.u_nk) if cell.activation_row.gated else code.z_nk


def _a(cell: Cell, weights: Weights, code: Code, epsilon: float) -> Tensor:
    norm_k = decoder_norm(cell, weights)
    z_nk = _z(cell, weights, code, epsilon)
    return z_nk if norm_k is None else z_nk * norm_k


def _log(cell: Cell, weights: Weights, code: Code, epsilon: float) -> Tensor:
    return (_a(cell, weights, code, epsilon) + LOG_OFFSET).log() - math.log(LOG_OFFSET)


def _tanh(cell: Cell, weights: Weights, code: Code, epsilon: float) -> Tensor:
    return torch.tanh(TANH_SLOPE * _a(cell, weights, code, epsilon))


def _sqrt(cell: Cell, weights: Weights, code: Code, epsilon: float) -> Tensor:
    return (_a(cell, weights, code, epsilon) + SQRT_OFFSET).sqrt() - math.sqrt(SQRT_OFFSET)


def _fires(cell: Cell, weights: Weights, code: Code, epsilon: float) -> Tensor:
    assert weights.threshold is not None
    return step(code.u_nk, weights.threshold, epsilon)


PHI: dict[str, Callable[[Cell, Weights, Code, float], Tensor]] = {
    "l1": _z,
    "l1_decoder_norm": _z,  # the norm is left to the sum over tokens
    "log": _log,
    "tanh": _tanh,
    "sqrt": _sqrt,
    "l0": _fires,
    "l0_quadratic": _fires,
}
"""By penalty: φ of each latent [N, K] from (cell, weights, code, ε); a is z‖d‖."""
