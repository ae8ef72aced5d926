"""The activations: z from the pre-activations u = (x − b_dec)·W_enc + b_enc.

`TRAINING` has a formula for each activation of `params.axes`, `INFERENCE` one for each architecture
that is saved.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae_repro.autoencoders import selection
from sae_repro.autoencoders.weights import Weights
from sae_repro.params import Cell


class Code(NamedTuple):
    """Pre-activations u [N, K] and the code z [N, K] ≥ 0 of a batch."""

    u_nk: Tensor
    z_nk: Tensor


def training_code(cell: Cell, weights: Weights, x_nd: Tensor, *, epsilon: float) -> Code:
    """The code of a batch x [N, D] as training sees it; ε is JumpReLU's kernel width.

    relu       z = max(u, 0)
    topk       z = max(u, 0) at the token's k largest u·‖d‖, else 0
    batchtopk  z = max(u, 0) at the k·N largest u·‖d‖ of the batch, else 0
    jumprelu   z = u·1[u > θ]
    gated      π = c·W_enc + b_gate, c = x − b_dec;
               z = 1[π > 0]·max(e^r ⊙ (c·W_enc) + b_mag, 0); u is π
    """
    return TRAINING[cell.activation](cell, weights, x_nd, epsilon)


def pre_activations(weights: Weights, x_nd: Tensor, *, apply_b_dec_to_input: bool) -> Tensor:
    """u [N, K]."""
    return _product(weights, x_nd, weights.b_enc, apply_b_dec_to_input=apply_b_dec_to_input)


def _product(
    weights: Weights, x_nd: Tensor, bias_k: Tensor, *, apply_b_dec_to_input: bool
) -> Tensor:
    if apply_b_dec_to_input:
        # (x − b_dec)·W_enc + b = x·W_enc + (b − b_dec·W_enc): no copy of x
        bias_k = bias_k - weights.b_dec @ weights.W_enc
    # one formula for all kernels, whether or not they could start their sum at the bias
    return torch.mm(x_nd, weights.W_enc).add_(bias_k)


def gated(weights: Weights, x_nd: Tensor, *, apply_b_dec_to_input: bool) -> tuple[Tensor, Tensor]:
    """(π, z), both [N, K], of a gated SAE (Rajamanoharan et al. 2024, arXiv:2404.16014, eq. 6).

    The gate 1[π > 0] has no gradient: π learns from the penalty and the auxiliary reconstruction.
    """
    assert weights.b_mag is not None and weights.r_mag is not None
    zero = torch.zeros_like(weights.b_enc)
    a_nk = _product(weights, x_nd, zero, apply_b_dec_to_input=apply_b_dec_to_input).to(x_nd.dtype)
    gate_nk = a_nk + weights.b_enc
    magnitude_nk = torch.relu(a_nk * weights.r_mag.exp() + weights.b_mag)
    return gate_nk, magnitude_nk * (gate_nk > 0)


def top_k(u_nk: Tensor, k: int, norm_k: Tensor | None = None) -> Tensor:
    """max(u, 0) [N, K] at each token's k largest u·‖d‖, else 0.

    `norm_k` is ‖d_k‖ where the rows of W_dec aren't unit. Exactly k are selected also among equal
    values, and what is selected but not positive does not fire.
    """
    with torch.no_grad():
        score = u_nk if norm_k is None else u_nk * norm_k
        selected = score.topk(k, dim=1, sorted=False).indices
        mask = torch.zeros_like(score).scatter_(1, selected, 1.0)
    return torch.relu(u_nk) * mask


def batch_top_k(u_nk: Tensor, k: int, norm_k: Tensor | None = None) -> Tensor:
    """As `top_k`, at the k·N largest of the batch's N tokens together."""
    with torch.no_grad():
        score = u_nk if norm_k is None else u_nk * norm_k
        flat = score.flatten()
        selected = flat.topk(min(k * len(u_nk), flat.numel()), sorted=False).indices
        mask = torch.zeros_like(flat).scatter_(0, selected, 1.0).view_as(score)
    return torch.relu(u_nk) * mask


class _JumpReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u_nk: Tensor, threshold_k: Tensor, epsilon: float) -> Tensor:
        ctx.save_for_backward(u_nk, threshold_k)
        ctx.epsilon = epsilon
        return u_nk * (u_nk > threshold_k)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (g_nk,) = gradients
        u_nk, threshold_k = ctx.saved_tensors
        window_nk = _rectangle(u_nk, threshold_k, ctx.epsilon)
        slope = -(threshold_k / ctx.epsilon) * (g_nk * window_nk).sum(0)
        return g_nk * (u_nk > threshold_k), slope, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u_nk: Tensor, threshold_k: Tensor, epsilon: float) -> Tensor:
        ctx.save_for_backward(u_nk, threshold_k)
        ctx.epsilon = epsilon
        return (u_nk > threshold_k).to(u_nk.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        (g_nk,) = gradients
        u_nk, threshold_k = ctx.saved_tensors
        window_nk = _rectangle(u_nk, threshold_k, ctx.epsilon)
        return None, -(1 / ctx.epsilon) * (g_nk * window_nk).sum(0), None


def _rectangle(u_nk: Tensor, threshold_k: Tensor, epsilon: float) -> Tensor:
    return ((u_nk - threshold_k).abs() < epsilon / 2).to(u_nk.dtype)


def jump_relu(u_nk: Tensor, threshold_k: Tensor, epsilon: float) -> Tensor:
    """u·1[u > θ], with a straight-through gradient for θ.

    ∂z/∂u = 1[u > θ] and ∂z/∂θ = −(θ/ε)·rect((u − θ)/ε), rect(v) = 1 for |v| < ½: a kernel
    estimate on the pre-activations (Rajamanoharan et al. 2024, arXiv:2407.14435, eq. 11).
    """
    z_nk: Tensor = _JumpReLU.apply(u_nk, threshold_k, epsilon)
    return z_nk


def step(u_nk: Tensor, threshold_k: Tensor, epsilon: float) -> Tensor:
    """1[u > θ]; ∂/∂θ = −(1/ε)·rect((u − θ)/ε), ∂/∂u = 0 (the same paper, eq. 12)."""
    fires_nk: Tensor = _Step.apply(u_nk, threshold_k, epsilon)
    return fires_nk


def decoder_norm(cell: Cell, weights: Weights) -> Tensor | None:
    """‖d_k‖ [K], or None where the rows are kept unit."""
    return None if cell.decoder == "unit_norm" else weights.W_dec.norm(dim=1)


def batchtopk_threshold(scores: Iterable[Tensor], k: int, tokens: int) -> float:
    """τ for inference: the (k·N+1)-th largest of the scores u·‖d‖ of N = `tokens` tokens in all.

    A latent fires if its score is > τ, which lets through k per token on average. With fewer than
    k·N + 1 positive scores τ = 0. `scores` are batches [n, K]; memory O(k·N).
    """
    largest, needed = torch.empty(0), k * tokens + 1
    for batch in scores:
        largest = torch.cat([largest.to(batch), batch[batch > 0]])
        if len(largest) > 2 * needed:
            largest = largest.topk(needed).values
    return float(largest.topk(needed).values[-1]) if len(largest) >= needed else 0.0


def _relu_code(cell: Cell, weights: Weights, x_nd: Tensor, epsilon: float) -> Code:
    u_nk = _training_u(cell, weights, x_nd)
    return Code(u_nk, torch.relu(u_nk))


def _top_k_code(cell: Cell, weights: Weights, x_nd: Tensor, epsilon: float) -> Code:
    u_nk = _training_u(cell, weights, x_nd)
    assert cell.k is not None  # the schema sees to it
    return Code(u_nk, top_k(u_nk, cell.k, decoder_norm(cell, weights)))


def _batch_top_k_code(cell: Cell, weights: Weights, x_nd: Tensor, epsilon: float) -> Code:
    u_nk = _training_u(cell, weights, x_nd)
    assert cell.k is not None
    return Code(u_nk, batch_top_k(u_nk, cell.k, decoder_norm(cell, weights)))


def _jump_relu_code(cell: Cell, weights: Weights, x_nd: Tensor, epsilon: float) -> Code:
    u_nk = _training_u(cell, weights, x_nd)
    assert weights.threshold is not None
    return Code(u_nk, jump_relu(u_nk, weights.threshold, epsilon))


def _gated_code(cell: Cell, weights: Weights, x_nd: Tensor, epsilon: float) -> Code:
    return Code(*gated(weights, x_nd, apply_b_dec_to_input=cell.subtracts_b_dec))


def _training_u(cell: Cell, weights: Weights, x_nd: Tensor) -> Tensor:
    u_nk = pre_activations(weights, x_nd, apply_b_dec_to_input=cell.subtracts_b_dec)
    return u_nk.to(x_nd.dtype)  # autocast's product is of half the width


TRAINING: dict[str, Callable[[Cell, Weights, Tensor, float], Code]] = {
    "relu": _relu_code,
    "topk": _top_k_code,
    "batchtopk": _batch_top_k_code,
    "jumprelu": _jump_relu_code,
    "gated": _gated_code,
}
"""By activation: the code of a batch from (cell, weights, x, ε)."""


def _standard(weights: Weights, x_nd: Tensor, apply: bool, k: int | None) -> Tensor:
    return torch.relu_(pre_activations(weights, x_nd, apply_b_dec_to_input=apply))


def _top_k(weights: Weights, x_nd: Tensor, apply: bool, k: int | None) -> Tensor:
    u_nk = pre_activations(weights, x_nd, apply_b_dec_to_input=apply)
    assert k is not None
    # what numpy can read
    plain = u_nk.device.type == "cpu" and u_nk.dim() == 2 and not u_nk.requires_grad
    if not plain or u_nk.dtype not in (torch.float32, torch.float64):
        values, selected = u_nk.topk(k, dim=-1, sorted=False)
        return torch.zeros_like(u_nk).scatter_(-1, selected, torch.relu_(values))
    z_nk, flat = torch.zeros_like(u_nk), selection.top_k(u_nk.numpy(), k)
    z_nk.numpy().reshape(-1)[flat] = u_nk.numpy().reshape(-1).take(flat)
    return z_nk


def _thresholded(weights: Weights, x_nd: Tensor, apply: bool, k: int | None) -> Tensor:
    z_nk = torch.relu_(pre_activations(weights, x_nd, apply_b_dec_to_input=apply))
    assert weights.threshold is not None
    return torch.where(z_nk > weights.threshold, z_nk, 0.0)


def _gated(weights: Weights, x_nd: Tensor, apply: bool, k: int | None) -> Tensor:
    return gated(weights, x_nd, apply_b_dec_to_input=apply)[1]


INFERENCE: dict[str, Callable[[Weights, Tensor, bool, int | None], Tensor]] = {
    "standard": _standard,
    "topk": _top_k,
    "jumprelu": _thresholded,
    "gated": _gated,
}
"""By architecture: z [N, K] from (weights, x, whether b_dec is subtracted from x, k)."""
