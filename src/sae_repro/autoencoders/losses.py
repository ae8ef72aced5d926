"""The training loss: reconstruction, penalty and auxiliary losses, means over tokens."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sae_repro.autoencoders.activations import training_code
from sae_repro.autoencoders.nested import nested_error
from sae_repro.autoencoders.penalties import penalty
from sae_repro.autoencoders.prefixes import prefix_error, prefix_weights
from sae_repro.autoencoders.transcoding import sides, skipped
from sae_repro.autoencoders.weights import Weights
from sae_repro.params import Cell


class Losses(NamedTuple):
    """A step's loss, its named terms (they sum to the loss), code z [N, K], full x̂ [N, D]."""

    loss: Tensor
    terms: dict[str, Tensor]
    z_nk: Tensor
    x_hat_nd: Tensor


def training_losses(
    cell: Cell,
    weights: Weights,
    x_nd: Tensor,
    *,
    lengths: list[int],
    lambda_: float | Tensor,
    dead_k: Tensor | None = None,
    epsilon: float = 0.0,
) -> Losses:
    """The loss of a batch x [N, D], of a transcoder with its targets beside it: [N, D + D_out].

    `lengths` are this step's prefixes (`prefix_lengths`), [K] for none; `lambda_` is λ at this
    step; `dead_k` [K] marks the latents that auxk revives (None: none); `epsilon` is JumpReLU's
    kernel width. `reconstruction: mean` divides squared errors by D. A gated SAE has the term
    `gate`: R(x, max(π, 0)·W_dec + b_dec), by which its gate learns to find what is there. The
    decoder, W_skip with it, is a constant there (`gated_auxiliary: frozen`; Rajamanoharan et al.
    2024, arXiv:2404.16014, eq. 8) or learns from it too (`trained`, as SAELens's gated SAE does).
    """
    seen_nd, x_nd = sides(cell, weights, x_nd)
    code = training_code(cell, weights, seen_nd, epsilon=epsilon)
    per = x_nd.numel() if cell.reconstruction == "mean" else len(x_nd)
    linear_nd = skipped(weights, seen_nd)
    # what is left to the latents
    left_nd = x_nd if linear_nd is None else x_nd - linear_nd.to(x_nd.dtype)
    error, x_hat = _reconstruction(cell, weights, left_nd, code.z_nk, lengths, per)
    terms = {"reconstruction": error}
    if cell.penalty != "none":
        terms["penalty"] = lambda_ * penalty(cell, weights, code, lengths=lengths, epsilon=epsilon)
    if cell.activation_row.gated:
        decoder, gate_left_nd = weights, left_nd
        if cell.gated_auxiliary == "frozen":
            decoder = replace(weights, W_dec=weights.W_dec.detach(), b_dec=weights.b_dec.detach())
            gate_left_nd = left_nd.detach()
        gate_nk = torch.relu(code.u_nk)
        terms["gate"], _ = _reconstruction(cell, decoder, gate_left_nd, gate_nk, lengths, per)
    if cell.revival_row.auxiliary and dead_k is not None:
        residual = (left_nd - x_hat).detach()
        terms["auxk"] = cell.auxk_coefficient * auxk_loss(
            weights, x_nd, code.u_nk, residual, dead_k, mean=cell.reconstruction == "mean"
        )
    if linear_nd is not None:
        x_hat = x_hat + linear_nd.to(x_nd.dtype)
    return Losses(torch.stack(list(terms.values())).sum(), terms, code.z_nk, x_hat)


def _reconstruction(
    cell: Cell, weights: Weights, x_nd: Tensor, z_nk: Tensor, lengths: list[int], per: int
) -> tuple[Tensor, Tensor]:
    """(squared error, mean over the prefixes; x̂ of the full code)."""
    if cell.prefixes_row.by_token:
        return nested_error(cell, weights, x_nd, z_nk, lengths, per)
    if len(lengths) == 1:
        x_hat = torch.addmm(weights.b_dec, z_nk, weights.W_dec).to(x_nd.dtype)
        return (x_nd - x_hat).square().sum() / per, x_hat
    weight_m = prefix_weights(cell, z_nk.shape[1])
    return prefix_error(weights, x_nd, z_nk, lengths, per, weight_m)


def auxk_loss(
    weights: Weights, x_nd: Tensor, u_nk: Tensor, residual_nd: Tensor, dead_k: Tensor, *, mean: bool
) -> Tensor:
    """V · Σ‖e − ê‖² / Σ‖e − ē‖²: how well the dead latents would explain what is left over.

    ê is the decode, without b_dec, of the k_aux = min(D/2, dead) largest ReLU'd pre-activations
    among the dead latents; e is the detached residual, ē its batch mean, and V the detached
    variance of x in the reduction of the reconstruction. 0 when nothing is dead or left over.
    JumpReLU's thresholds play no part, a gated SAE's u is π.
    Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", appendix A.2.
    """
    d_in = x_nd.shape[1]
    k_aux = max(1, d_in // 2)
    score = u_nk.masked_fill(~dead_k, -torch.inf)
    values, chosen = score.topk(min(k_aux, u_nk.shape[1]), dim=1, sorted=False)
    # fewer dead than k_aux: the living ones among the chosen are −∞, which ReLU makes 0
    z_aux = torch.zeros_like(u_nk).scatter(1, chosen, torch.relu(values))
    e_hat = (z_aux @ weights.W_dec).to(x_nd.dtype)
    total = (residual_nd - residual_nd.mean(0)).square().sum()
    variance = (x_nd - x_nd.mean(0)).square().sum() / (x_nd.numel() if mean else len(x_nd))
    ratio = (residual_nd - e_hat).square().sum() / total.clamp_min(torch.finfo(total.dtype).tiny)
    usable = dead_k.any() & (total > 0)
    return torch.where(usable, variance.detach() * ratio, torch.zeros_like(ratio))
