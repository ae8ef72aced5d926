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
    """Rising lengths l_1 < … < l_m = K of one step's prefixes.

    none    K alone
    fixed   the running sums of `prefix_shares`, rounded
    random  K, and n − 1 others drawn without replacement from the truncated Pareto
            p(l) ∝ l^−α − (l+1)^−α on 1 … K − 1
    random_published  the same with p(l) ∝ l^α − (l−1)^α, as the published code draws: far
            fewer short ones
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
}
"""By prefix scheme: the lengths of one step from (cell, K, the step's own generator)."""


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
    ) -> tuple[Tensor, Tensor]:
        error_nd = b_dec - x_nd
        errors_mnd = torch.empty(len(lengths), *x_nd.shape, dtype=x_nd.dtype, device=x_nd.device)
        for number, (a, b) in enumerate(pairwise([0, *lengths])):
            error_nd = torch.add(error_nd, z_nk[:, a:b] @ w_dec[a:b], out=errors_mnd[number])
        ctx.save_for_backward(z_nk, w_dec, errors_mnd)
        ctx.lengths, ctx.over = lengths, per * len(lengths)
        x_hat = error_nd + x_nd
        ctx.mark_non_differentiable(x_hat)
        return errors_mnd.square().sum() / ctx.over, x_hat

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        z_nk, w_dec, errors_mnd = ctx.saved_tensors
        scale = gradients[0] * (2 / ctx.over)
        for_x, for_z, for_w, for_b, _, _ = ctx.needs_input_grad
        dz = torch.empty_like(z_nk) if for_z else None
        dw = torch.empty_like(w_dec) if for_w else None
        residual_nd = torch.zeros_like(errors_mnd[0])
        for number, (a, b) in reversed([*enumerate(pairwise([0, *ctx.lengths]))]):
            # latents a … b are in this prefix and in all longer ones
            residual_nd.addcmul_(errors_mnd[number], scale)
            if dz is not None:
                torch.mm(residual_nd, w_dec[a:b].T, out=dz[:, a:b])
            if dw is not None:
                torch.mm(z_nk[:, a:b].T, residual_nd, out=dw[a:b])
        dx, db = -residual_nd if for_x else None, residual_nd.sum(0) if for_b else None
        return dx, dz, dw, db, None, None


def prefix_error(
    weights: Weights, x_nd: Tensor, z_nk: Tensor, lengths: list[int], per: int
) -> tuple[Tensor, Tensor]:
    """(Σ over prefixes and tokens of ‖x − x̂_l‖² / (per · m), x̂ of the full code [N, D]).

    x̂_l = z[:, :l] @ W_dec[:l] + b_dec for each of the m lengths l, l_m = K, at the cost of one
    decode: the blocks between two lengths are decoded once and summed up; backward, the residuals
    are summed up from the other end. x̂ carries no gradient.
    """
    error: Tensor
    error, x_hat = _PrefixError.apply(x_nd, z_nk, weights.W_dec, weights.b_dec, lengths, per)
    return error, x_hat


def prefix_fraction(lengths: list[int], like_nk: Tensor) -> Tensor:
    """Fraction of the prefixes that hold latent k, [K]: the weight of its penalty."""
    ends = torch.zeros(like_nk.shape[1] + 1, dtype=like_nk.dtype, device=like_nk.device)
    on_gpu = like_nk.device.type == "cuda"  # a copy of memory that is not pinned would wait
    at = torch.tensor(lengths, pin_memory=on_gpu).to(like_nk.device, non_blocking=on_gpu)
    ends.index_fill_(0, at, 1 / len(lengths))
    # latent k (from 0) is in the prefixes whose length is > k
    return ends[1:].flip(0).cumsum(0).flip(0)
