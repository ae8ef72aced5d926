"""Prefixes that follow what fires on each token: errors of them all in one cumulative pass.

hierarchical  x̂_k' = b_dec + the k' strongest of the latents that fire, for each k' of `prefix_k`:
              of each token with topk, with batchtopk the k'·N strongest of the batch of N. One SAE
              for every k' (Balagansky et al. 2025, arXiv:2505.24473).
all           x̂_l = b_dec + those of the first l latents that fire, for every l = 1 … K. x̂_l changes
              only where a latent fires: with s firing latents there are s + 1 errors, each as often
              as there are l up to the next one.

Strength is z·‖d‖, by which k selects. Cost and memory are N·m·D for m errors per token (m = the
number of k', or 1 + the most latents that fire on a token), whatever K is.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sae_repro.autoencoders.activations import decoder_norm
from sae_repro.autoencoders.prefixes import prefix_weights
from sae_repro.autoencoders.weights import Weights
from sae_repro.params import Cell


class Nesting(NamedTuple):
    """Entries of a code by the first error that they take part in; their order means nothing."""

    flat: Tensor
    """Flat indices into [N, K], [nnz]."""
    group: Tensor
    """0 … m − 1, [nnz]."""
    weight: Tensor
    """Of the m errors, [m] or [N, m]; a token's sum to 1."""


def nested_error(
    cell: Cell, weights: Weights, x_nd: Tensor, z_nk: Tensor, lengths: list[int], per: int
) -> tuple[Tensor, Tensor]:
    """(Σ over tokens and prefixes of w·‖x − x̂‖² / per, x̂ of the full code [N, D]).

    `lengths` as `prefix_lengths` gives them. x̂ carries no gradient.
    """
    norm_k = decoder_norm(cell, weights)
    strength_nk = (z_nk if norm_k is None else z_nk * norm_k).detach()
    nesting = NESTINGS[cell.prefixes](cell, strength_nk, lengths)
    m, d_sae = nesting.weight.shape[-1], z_nk.shape[1]
    row, latent = nesting.flat // d_sae, nesting.flat % d_sae
    part = z_nk.flatten()[nesting.flat, None] * weights.W_dec[latent]
    sums = part.new_zeros(len(x_nd) * m, x_nd.shape[1]).index_add(0, row * m + nesting.group, part)
    error_nmd = sums.view(len(x_nd), m, -1).cumsum(1) + (weights.b_dec - x_nd)[:, None]
    error = (error_nmd.square().sum(2) * nesting.weight).sum() / per
    return error, (error_nmd[:, -1] + x_nd).detach()


def _hierarchical(cell: Cell, strength_nk: Tensor, lengths: list[int]) -> Nesting:
    n, d_sae = strength_nk.shape
    at, k = torch.tensor(lengths, device=strength_nk.device), lengths[-1]
    if cell.activation_row.threshold == "calibrated":  # of the batch
        flat = strength_nk.flatten().topk(min(k * n, n * d_sae)).indices
        rank = torch.arange(len(flat), device=flat.device)
        group = torch.searchsorted(at * n, rank, right=True)
    else:
        latent = strength_nk.topk(k, dim=1).indices
        rank = torch.arange(k, device=latent.device)
        group = torch.searchsorted(at, rank, right=True).repeat(n)
        flat = (latent + torch.arange(n, device=latent.device)[:, None] * d_sae).flatten()
    weight = prefix_weights(cell, d_sae)
    equal = strength_nk.new_ones(len(lengths))
    relative = equal if weight is None else torch.from_numpy(weight).to(equal)
    return Nesting(flat, group, relative / len(lengths))


def _all(cell: Cell, strength_nk: Tensor, lengths: list[int]) -> Nesting:
    n, d_sae = strength_nk.shape
    fires_nk = strength_nk > 0
    ordinal_nk = fires_nk.cumsum(1)  # from 1: before the first, the error is that of b_dec
    m = int(ordinal_nk.max()) + 1
    flat = fires_nk.flatten().nonzero().flatten()
    group = ordinal_nk.flatten()[flat]
    start = torch.full((n, m + 1), d_sae, device=flat.device)
    start[:, 0] = 0
    start[flat // d_sae, group] = flat % d_sae
    return Nesting(flat, group, start.diff(dim=1).to(strength_nk) / d_sae)


NESTINGS: dict[str, Callable[[Cell, Tensor, list[int]], Nesting]] = {
    "all": _all,
    "hierarchical": _hierarchical,
}
"""By prefix scheme with `by_token`: from (cell, z·‖d‖ [N, K], lengths)."""
