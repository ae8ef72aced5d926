"""Transcoders: what a batch and a decode are, where inputs and targets are two hooks.

f(x) = z(x)·W_dec + b_dec predicts the activations y at one hook from those at another (Dunefsky et
al. 2024, arXiv:2406.11944), here the MLP's output from its input. A skip connection adds x·W_skipᵀ,
which takes what is linear off the latents (Paulo et al. 2025, arXiv:2501.18823, eq. 3).
"""

import torch
from torch import Tensor

from sae_repro.autoencoders.weights import Weights
from sae_repro.params import Cell


def sides(cell: Cell, weights: Weights, x_nd: Tensor) -> tuple[Tensor, Tensor]:
    """(x [N, D], y [N, D_out]) of a batch: what is encoded and what is to be reconstructed.

    Of an SAE both are `x_nd`; a transcoder's batch has them side by side, [N, D + D_out].
    """
    if cell.target_hook is None:
        return x_nd, x_nd
    d_in = weights.d_in
    return x_nd[:, :d_in].contiguous(), x_nd[:, d_in:].contiguous()


def skipped(weights: Weights, x_nd: Tensor) -> Tensor | None:
    """x·W_skipᵀ [N, D_out], the linear part of the prediction; None without a skip connection."""
    return None if weights.W_skip is None else torch.mm(x_nd, weights.W_skip.T)
