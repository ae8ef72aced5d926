"""Resampling of dead latents (Bricken et al. 2023, "Towards Monosemanticity", appendix)."""

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders import LATENT_AXIS, Weights, training_code
from sae_repro.autoencoders.transcoding import sides, skipped
from sae_repro.params import Cell
from sae_repro.training.optimiser import Optimiser

ENCODER_SCALE = 0.2  # of the mean norm of the living encoder columns
PUBLISHED_BIAS = -0.05
CHUNK = 4096
IN_CACHE = 1 << 20  # pre-activations; with more the processor waits for memory, up to half the time


def token_losses(cell: Cell, weights: Weights, x_nd: Tensor, *, epsilon: float) -> Tensor:
    """Squared error of each token, [N]: the loss that weights the draw."""
    losses, rows = [], CHUNK
    if x_nd.device.type == "cpu":
        rows = min(CHUNK, max(256, IN_CACHE // weights.d_sae))
    with torch.no_grad():
        for x in x_nd.split(rows):
            seen, target = sides(cell, weights, x)
            z = training_code(cell, weights, seen, epsilon=epsilon).z_nk
            error = target - weights.b_dec - z @ weights.W_dec
            linear = skipped(weights, seen)
            losses.append((error if linear is None else error - linear).square().sum(1))
    return torch.cat(losses)


def resample(
    cell: Cell,
    weights: Weights,
    optimiser: Optimiser,
    dead_k: Tensor,
    x_nd: Tensor,
    rng: np.random.Generator,
    *,
    epsilon: float = 0.0,
) -> int:
    """Give every dead latent a new direction, in place; return how many there were.

    Tokens are drawn from `x_nd` [N, D] with replacement, p ∝ loss². The atom becomes the token's
    direction from b_dec (of norm one, or of the mean living norm where rows are free), the encoder
    column the same direction × 0.2 × the mean norm of the living columns (1 if none lives), b_enc
    (and b_mag) `resample_bias`, r_mag 0, θ its start `epsilon`; Adam's m and v become zero for
    those latents, and for no others.

    Of a transcoder, whose rows are [N, D + D_out], the atom is the direction of the token's target
    from b_dec, and the encoder column that of its input.

    `resample_published` is what the published GPT-2 grid did: p ∝ loss, the token's own direction
    (not from b_dec), of norm one in encoder and decoder alike, and all that Adam remembers is
    forgotten, the living latents' moments and the step count included.
    """
    dead = dead_k.nonzero().flatten()
    if not len(dead):
        return 0
    published = cell.revival_row.published
    loss = token_losses(cell, weights, x_nd, epsilon=epsilon).double().cpu().numpy()
    p = loss if published else loss**2
    total = p.sum()
    # nothing to weigh by where all losses are 0, or where training has overflowed and will fail
    weighed = 0 < total < np.inf
    rows = rng.choice(len(p), size=len(dead), p=p / total if weighed else None)
    with torch.no_grad():
        seen, direction = sides(cell, weights, x_nd[torch.from_numpy(rows).to(x_nd.device)])
        if not published:
            direction = direction - weights.b_dec
        direction = _unit(direction)
        encoder, atom = (1.0, 1.0) if published else _norms(cell, weights, ~dead_k)
        weights.W_dec[dead] = direction * atom
        # a transcoder's inputs are centred already
        read = direction if cell.target_hook is None else _unit(seen)
        weights.W_enc[:, dead] = read.T * encoder
        _start_afresh(cell, weights, dead, epsilon)
        if published:
            optimiser.forget()
        else:
            for name, axis in LATENT_AXIS.items():
                if getattr(weights, name) is not None:
                    for moment in optimiser.moments(name):
                        moment.index_fill_(axis, dead, 0.0)
    return len(dead)


def _unit(rows: Tensor) -> Tensor:
    norm: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / norm.clamp_min(torch.finfo(rows.dtype).tiny)


def _norms(cell: Cell, weights: Weights, living_k: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """Norms of a revived latent's encoder column and decoder row."""
    if not bool(living_k.any()):
        return ENCODER_SCALE, 1.0
    encoder = ENCODER_SCALE * weights.W_enc[:, living_k].norm(dim=0).mean()
    free = cell.decoder == "free"
    return encoder, weights.W_dec[living_k].norm(dim=1).mean() if free else 1.0


def _start_afresh(cell: Cell, weights: Weights, dead: Tensor, epsilon: float) -> None:
    """Biases, thresholds and scales of the revived latents `dead` [n]."""
    bias = cell.resample_bias
    if bias is None:
        bias = PUBLISHED_BIAS if cell.revival_row.published else 0.0
    weights.b_enc[dead] = bias
    if weights.threshold is not None:
        weights.threshold[dead] = epsilon
    if weights.b_mag is not None and weights.r_mag is not None:
        weights.b_mag[dead] = bias
        weights.r_mag[dead] = 0.0
