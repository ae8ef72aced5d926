"""Matryoshka prefixes: the truncations of z that must reconstruct x by themselves."""

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders.weights import Weights
from sae_repro.params import Cell


def prefix_lengths(cell: Cell, width: int, rng: np.random.Generator) -> list[int]:
    """Rising lengths l_1 < … < l_m = K of one step's prefixes.

    fixed   the running sums of `prefix_shares`, rounded
    random  K, and n − 1 others drawn without replacement from the truncated Pareto
            p(l) ∝ l^−α − (l+1)^−α on 1 … K − 1
    random_published  the same with p(l) ∝ l^α − (l−1)^α, as the published code draws: far
            fewer short ones
    """
    if cell.prefixes == "none":
        return [width]
    if cell.prefixes == "fixed":
        ends = np.rint(np.cumsum(cell.prefix_shares) * width).astype(int)
        return sorted({*ends.tolist(), width} - {0})
    lengths, alpha = np.arange(1, width, dtype=np.float64), cell.prefix_alpha
    if cell.prefixes == "random_published":
        weight = lengths**alpha - (lengths - 1) ** alpha
    else:
        weight = lengths**-alpha - (lengths + 1) ** -alpha
    # the n − 1 largest of log p + Gumbel noise are a draw without replacement (Efraimidis-Spirakis)
    key = np.log(weight) + rng.gumbel(size=width - 1)
    drawn = min(cell.n_prefixes, width) - 1
    chosen = np.argpartition(-key, drawn - 1)[:drawn] + 1 if drawn else np.empty(0, dtype=int)
    return [*sorted(chosen.tolist()), width]


def prefix_reconstructions(weights: Weights, z_nk: Tensor, lengths: list[int]) -> Tensor:
    """x̂ of every prefix, [m, N, D], at the cost of one decode.

    Equal to [z[:, :l] @ W_dec[:l] + b_dec for l in lengths]; the blocks between two lengths are
    decoded once and summed up, so that the backward pass sums the residuals up from the other end.
    """
    starts = [0, *lengths[:-1]]
    blocks = [z_nk[:, a:b] @ weights.W_dec[a:b] for a, b in zip(starts, lengths, strict=True)]
    return torch.stack(blocks).cumsum(0) + weights.b_dec


def prefix_share(lengths: list[int], like_nk: Tensor) -> Tensor:
    """Share of the prefixes that hold latent k, [K]: the weight of its penalty."""
    ends = torch.zeros(like_nk.shape[1] + 1, dtype=like_nk.dtype, device=like_nk.device)
    ends[torch.tensor(lengths, device=like_nk.device)] = 1 / len(lengths)
    # latent k (from 0) is in the prefixes whose length is > k
    return ends[1:].flip(0).cumsum(0).flip(0)
