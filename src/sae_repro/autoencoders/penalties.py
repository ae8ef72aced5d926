"""What keeps z sparse: the penalties, as means over tokens, weighed by the prefixes."""

import math

import torch
from torch import Tensor

from sae_repro.autoencoders.activations import Code, decoder_norm, step
from sae_repro.autoencoders.prefixes import prefix_share
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
    l1_decoder_norm  Σ z_k‖d_k‖
    log              Σ [ln(z_k‖d_k‖ + .1) − ln .1]
    tanh             Σ tanh(4 z_k‖d_k‖)
    sqrt             Σ [√(z_k‖d_k‖ + 1e-4) − .01]
    l0               Σ 1[u_k > θ_k]
    l0_quadratic     (L0/L0* − 1)², once, on the full code

    For a gated SAE max(π, 0) stands in z's place. Under `unit_norm` ‖d_k‖ is 1.
    """
    n = len(code.u_nk)
    if cell.penalty in ("l0", "l0_quadratic"):
        assert weights.threshold is not None
        phi_nk = step(code.u_nk, weights.threshold, epsilon)
        if cell.penalty == "l0_quadratic":
            assert cell.target_l0 is not None
            return (phi_nk.sum() / n / cell.target_l0 - 1).square()
    else:
        phi_nk = _of_values(cell, weights, code)
    per_latent = phi_nk.sum(0)
    weight = None if len(lengths) == 1 else prefix_share(lengths, phi_nk)
    if cell.penalty == "l1_decoder_norm":
        norm = weights.W_dec.norm(dim=1)
        weight = norm if weight is None else weight * norm
    # no matrix product: under autocast that would round to 8 bits
    return (per_latent if weight is None else per_latent * weight).sum() / n


def _of_values(cell: Cell, weights: Weights, code: Code) -> Tensor:
    """φ of each z [N, K]; the norm of `l1_decoder_norm` is left to the sum over tokens."""
    z_nk = torch.relu(code.u_nk) if cell.activation == "gated" else code.z_nk
    if cell.penalty in ("l1", "l1_decoder_norm"):
        return z_nk
    norm_k = decoder_norm(cell, weights)
    a_nk = z_nk if norm_k is None else z_nk * norm_k
    match cell.penalty:
        case "log":
            return (a_nk + LOG_OFFSET).log() - math.log(LOG_OFFSET)
        case "tanh":
            return torch.tanh(TANH_SLOPE * a_nk)
        case _:
            return (a_nk + SQRT_OFFSET).sqrt() - math.sqrt(SQRT_OFFSET)
