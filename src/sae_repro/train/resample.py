"""Resampling of dead latents (Bricken et al. 2023, "Towards Monosemanticity", appendix)."""

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders import Weights, activate, decoder_norm
from sae_repro.autoencoders.activations import pre_activations
from sae_repro.params import Cell
from sae_repro.train.optimiser import Optimiser

ENCODER_SCALE = 0.2  # of the mean norm of the living encoder columns
CHUNK = 4096


def token_losses(cell: Cell, weights: Weights, x_nd: Tensor) -> Tensor:
    """Squared error of each token, [N]: the loss that weights the draw."""
    losses = []
    with torch.no_grad():
        for x in x_nd.split(CHUNK):
            u = pre_activations(weights, x, apply_b_dec_to_input=cell.apply_b_dec_to_input)
            z = activate(cell, u, decoder_norm(cell, weights))
            losses.append((x - weights.b_dec - z @ weights.W_dec).square().sum(1))
    return torch.cat(losses)


def resample(
    cell: Cell,
    weights: Weights,
    optimiser: Optimiser,
    dead_k: Tensor,
    x_nd: Tensor,
    rng: np.random.Generator,
) -> int:
    """Give every dead latent a new direction, in place; how many there were.

    Tokens are drawn from `x_nd` [N, D] with replacement, p ∝ loss². The atom becomes the token's
    direction from b_dec (of norm one, or of the mean living norm where rows are free), the encoder
    column the same direction × 0.2 × the mean norm of the living columns (1 if none lives), b_enc
    `resample_bias`; Adam's m and v become zero for those latents, and for no others.
    """
    dead = dead_k.nonzero().flatten()
    if not len(dead):
        return 0
    loss = token_losses(cell, weights, x_nd).double().cpu().numpy()
    p = loss**2
    total = p.sum()
    drawn = rng.choice(len(p), size=len(dead), p=p / total if total > 0 else None)
    with torch.no_grad():
        direction = x_nd[torch.from_numpy(drawn).to(x_nd.device)] - weights.b_dec
        direction /= direction.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x_nd.dtype).tiny)
        living = ~dead_k
        some = bool(living.any())
        encoder = weights.W_enc[:, living].norm(dim=0).mean() if some else 1.0
        atom = 1.0
        if cell.decoder == "free" and some:
            atom = weights.W_dec[living].norm(dim=1).mean()
        weights.W_dec[dead] = direction * atom
        weights.W_enc[:, dead] = direction.T * (ENCODER_SCALE * encoder)
        weights.b_enc[dead] = cell.resample_bias
        for name, rows in (("W_dec", (dead,)), ("W_enc", (slice(None), dead)), ("b_enc", (dead,))):
            for moment in optimiser.moments(name):
                moment[rows] = 0.0
    return len(dead)
