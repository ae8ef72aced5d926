"""Matryoshka prefixes: the truncations of z that must reconstruct x by themselves."""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.autoencoders.weights import Weights
from sae_repro.params import Cell


def prefix_lengths(cell: Cell, width: int, rng: np.random.Generator) -> list[int]:
    """Rising lengths l_1 < … < l_m of one step's prefixes; l_m = K but for hierarchical.

    none    K alone
    fixed   the running sums of `prefix_shares`, rounded
    random  K, and n − 1 others drawn without replacement from the truncated Pareto
            p(l) ∝ l^−α − (l+1)^−α on 1 … K − 1
    random_published  the same with p(l) ∝ l^α − (l−1)^α, as the published code draws: far
            fewer short ones
    all     K, which stands for every l ≤ K (`nested`)
    hierarchical  `prefix_k`, or 1, 2, … k: latents by their activation, not by their number
    """
    return LENGTHS[cell.prefixes](cell, width, rng)


def _none(cell: Cell, width: int, rng: np.random.Generator) -> list[int]:
    return [width]


def _fixed(cell: Cell, width: int, rng: np.random.Generator) -> list[int]:
    ends = np.rint(np.cumsum(cell.prefix_shares) * width).astype(int)
    return sorted({*ends.tolist(), width} - {0})


def _random(cell: Cell, width: int, rng: np.random.Generator) -> list[int]:
    return _sampled_lengths(_log_weights(cell.prefix_alpha, width), cell, width, rng)


def _random_published(cell: Cell, width: int, rng: np.random.Generator) -> list[int]:
    return _sampled_lengths(_published_log_weights(cell.prefix_alpha, width), cell, width, rng)


def _hierarchical(cell: Cell, width: int, rng: np.random.Generator) -> list[int]:
    assert cell.k is not None  # the schema sees to it
    return list(cell.prefix_k or range(1, cell.k + 1))


@lru_cache(maxsize=8)  # of every step the same, and longer to compute than to draw by
def _log_weights(alpha: float, width: int) -> npt.NDArray[np.float64]:
    lengths = np.arange(1, width, dtype=np.float64)
    return _constant(np.log(lengths**-alpha - (lengths + 1) ** -alpha))


@lru_cache(maxsize=8)
def _published_log_weights(alpha: float, width: int) -> npt.NDArray[np.float64]:
    lengths = np.arange(1, width, dtype=np.float64)
    return _constant(np.log(lengths**alpha - (lengths - 1) ** alpha))


def _constant(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    values.setflags(write=False)
    return values


def _sampled_lengths(
    log_weight_l: npt.NDArray[np.float64], cell: Cell, width: int, rng: np.random.Generator
) -> list[int]:
    """K, and n − 1 others drawn without replacement whose log p is `log_weight_l` of 1 … K − 1."""
    # the n − 1 largest of log p + Gumbel noise are a draw without replacement (Efraimidis-Spirakis)
    key = log_weight_l + rng.gumbel(size=width - 1)
    n_drawn = min(cell.n_prefixes, width) - 1
    chosen = np.argpartition(-key, n_drawn - 1)[:n_drawn] + 1 if n_drawn else np.empty(0, dtype=int)
    return [*sorted(chosen.tolist()), width]


LENGTHS: dict[str, Callable[[Cell, int, np.random.Generator], list[int]]] = {
    "none": _none,
    "fixed": _fixed,
    "random": _random,
    "random_published": _random_published,
    "all": _none,
    "hierarchical": _hierarchical,
}
"""By prefix scheme: the lengths of one step from (cell, K, the step's own generator)."""


def prefix_weights(cell: Cell, width: int) -> npt.NDArray[np.float64] | None:
    """`prefix_weights` of the lengths of `prefix_lengths`, with mean 1, [m]; None: all the same."""
    if cell.prefix_weights is None:
        return None
    weight = np.array(cell.prefix_weights, np.float64)
    if cell.prefixes == "fixed":  # rounding may have made one length of two
        ends = np.rint(np.cumsum(cell.prefix_shares) * width).astype(int)
        weight = np.bincount(ends, weight, minlength=width + 1)[1:].astype(np.float64)
        weight = weight[_fixed_mask(ends, width)]
    relative: npt.NDArray[np.float64] = weight * (len(weight) / weight.sum())
    return relative


def _fixed_mask(ends: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(width, bool)
    mask[[*(ends[ends > 0] - 1), width - 1]] = True
    return mask


class _PrefixError(torch.autograd.Function):
    """One decode for all prefixes and one backward; autograd's own would pad every block to K."""

    @staticmethod
    def forward(
        ctx: Any,
        x_nd: Tensor,
        z_nk: Tensor,
        w_dec: Tensor,
        b_dec: Tensor,
        lengths: list[int],
        per: int,
        weight_m: npt.NDArray[np.float64] | None,
    ) -> tuple[Tensor, Tensor]:
        error_nd = b_dec - x_nd
        errors_mnd = torch.empty(len(lengths), *x_nd.shape, dtype=x_nd.dtype, device=x_nd.device)
        for number, (a, b) in enumerate(pairwise([0, *lengths])):
            error_nd = torch.add(error_nd, z_nk[:, a:b] @ w_dec[a:b], out=errors_mnd[number])
        ctx.save_for_backward(z_nk, w_dec, errors_mnd)
        ctx.lengths, ctx.over, ctx.weight_m = lengths, per * len(lengths), weight_m
        x_hat = error_nd + x_nd
        ctx.mark_non_differentiable(x_hat)
        square_mnd = errors_mnd.square()
        if weight_m is not None:
            square_mnd *= torch.from_numpy(weight_m).to(square_mnd)[:, None, None]
        return square_mnd.sum() / ctx.over, x_hat

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        z_nk, w_dec, errors_mnd = ctx.saved_tensors
        scale = gradients[0] * (2 / ctx.over)
        for_x, for_z, for_w, for_b, *_ = ctx.needs_input_grad
        dz = torch.empty_like(z_nk) if for_z else None
        dw = torch.empty_like(w_dec) if for_w else None
        residual_nd = torch.zeros_like(errors_mnd[0])
        for number, (a, b) in reversed([*enumerate(pairwise([0, *ctx.lengths]))]):
            # latents a … b are in this prefix and in all longer ones
            share = scale if ctx.weight_m is None else scale * float(ctx.weight_m[number])
            residual_nd.addcmul_(errors_mnd[number], share)
            if dz is not None:
                torch.mm(residual_nd, w_dec[a:b].T, out=dz[:, a:b])
            if dw is not None:
                torch.mm(z_nk[:, a:b].T, residual_nd, out=dw[a:b])
        dx, db = -residual_nd if for_x else None, residual_nd.sum(0) if for_b else None
        return dx, dz, dw, db, None, None, None


def prefix_error(
    weights: Weights,
    x_nd: Tensor,
    z_nk: Tensor,
    lengths: list[int],
    per: int,
    weight_m: npt.NDArray[np.float64] | None = None,
) -> tuple[Tensor, Tensor]:
    """(Σ over prefixes and tokens of w_l·‖x − x̂_l‖² / (per · m), x̂ of the full code [N, D]).

    `weight_m` are the w_l, with mean 1; None: all 1. x̂_l = z[:, :l] @ W_dec[:l] + b_dec for each
    of the m lengths l, l_m = K, at the cost of one decode: the blocks between two lengths are
    decoded once and summed up; backward, the residuals
    are summed up from the other end. x̂ carries no gradient.
    """
    error: Tensor
    error, x_hat = _PrefixError.apply(
        x_nd, z_nk, weights.W_dec, weights.b_dec, lengths, per, weight_m
    )
    return error, x_hat


def prefix_fraction(
    lengths: list[int], like_nk: Tensor, weight_m: npt.NDArray[np.float64] | None = None
) -> Tensor:
    """Fraction of the prefixes, by their weights, that hold latent k, [K]: that of its penalty."""
    ends = torch.zeros(like_nk.shape[1] + 1, dtype=like_nk.dtype, device=like_nk.device)
    on_gpu = like_nk.device.type == "cuda"  # a copy of memory that is not pinned would wait
    at = torch.tensor(lengths, pin_memory=on_gpu).to(like_nk.device, non_blocking=on_gpu)
    if weight_m is None:
        ends.index_fill_(0, at, 1 / len(lengths))
    else:
        ends.index_copy_(0, at, torch.from_numpy(weight_m / len(lengths)).to(ends))
    # latent k (from 0) is in the prefixes whose length is > k
    return ends[1:].flip(0).cumsum(0).flip(0)
