"""What an SAE is trained on: reconstruction, penalty, auxiliary loss; means over tokens."""

from typing import NamedTuple

import torch
from torch import Tensor

from sae_repro.autoencoders.activations import activate, decoder_norm, pre_activations
from sae_repro.autoencoders.prefixes import prefix_reconstructions, prefix_share
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
    lambda_: float,
    dead_k: Tensor | None = None,
) -> Losses:
    """The loss of a batch x [N, D].

    `lengths` are this step's prefixes, [K] for none; `lambda_` is λ after its warm-up; `dead_k`
    [K] marks the latents that auxk revives (None: none). `reconstruction: mean` divides squared
    errors by D.
    """
    u_nk = pre_activations(weights, x_nd, apply_b_dec_to_input=cell.apply_b_dec_to_input)
    z_nk = activate(cell, u_nk, decoder_norm(cell, weights))
    per = x_nd.numel() if cell.reconstruction == "mean" else len(x_nd)
    if len(lengths) == 1:
        x_hat = torch.addmm(weights.b_dec, z_nk, weights.W_dec)
        terms = {"reconstruction": (x_nd - x_hat).square().sum() / per}
    else:
        x_hats = prefix_reconstructions(weights, z_nk, lengths)
        x_hat = x_hats[-1]
        terms = {"reconstruction": (x_nd - x_hats).square().sum() / (per * len(lengths))}
    if cell.penalty != "none":
        weight = None if len(lengths) == 1 else prefix_share(lengths, z_nk)
        if cell.penalty == "l1_decoder_norm":
            norm = weights.W_dec.norm(dim=1)
            weight = norm if weight is None else weight * norm
        per_latent = z_nk.sum(0)
        total = per_latent.sum() if weight is None else per_latent @ weight
        terms["penalty"] = lambda_ * total / len(x_nd)
    if cell.revival == "auxk" and dead_k is not None:
        residual = (x_nd - x_hat).detach()
        terms["auxk"] = cell.auxk_coefficient * auxk_loss(
            weights, x_nd, u_nk, residual, dead_k, mean=cell.reconstruction == "mean"
        )
    return Losses(torch.stack(list(terms.values())).sum(), terms, z_nk, x_hat)


def auxk_loss(
    weights: Weights, x_nd: Tensor, u_nk: Tensor, residual_nd: Tensor, dead_k: Tensor, *, mean: bool
) -> Tensor:
    """V · Σ‖e − ê‖² / Σ‖e − ē‖²: how well the dead latents would explain what is left over.

    ê is the decode, without b_dec, of the k_aux = min(D/2, dead) largest ReLU'd pre-activations
    among the dead latents; e is the detached residual, ē its batch mean, and V the detached
    variance of x in the reduction of the reconstruction. 0 when nothing is dead or left over.
    Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", appendix A.2.
    """
    d_in = x_nd.shape[1]
    k_aux = max(1, d_in // 2)
    score = u_nk.masked_fill(~dead_k, -torch.inf)
    values, chosen = score.topk(min(k_aux, u_nk.shape[1]), dim=1, sorted=False)
    # fewer dead than k_aux: the living ones among the chosen are −∞, which ReLU makes 0
    z_aux = torch.zeros_like(u_nk).scatter(1, chosen, torch.relu(values))
    e_hat = z_aux @ weights.W_dec
    left = (residual_nd - residual_nd.mean(0)).square().sum()
    variance = (x_nd - x_nd.mean(0)).square().sum() / (x_nd.numel() if mean else len(x_nd))
    ratio = (residual_nd - e_hat).square().sum() / left.clamp_min(torch.finfo(left.dtype).tiny)
    usable = dead_k.any() & (left > 0)
    return torch.where(usable, variance.detach() * ratio, torch.zeros_like(ratio))
