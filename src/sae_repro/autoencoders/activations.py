"""How z comes from the pre-activations u = (x − b_dec)·W_enc + b_enc."""

from collections.abc import Iterable

import torch
from torch import Tensor

from sae_repro.autoencoders.weights import Weights
from sae_repro.params import Cell


def pre_activations(weights: Weights, x_nd: Tensor, *, apply_b_dec_to_input: bool) -> Tensor:
    """u [N, K]."""
    if apply_b_dec_to_input:
        # (x − b_dec)·W_enc + b_enc = x·W_enc + (b_enc − b_dec·W_enc): no copy of x
        return torch.addmm(weights.b_enc - weights.b_dec @ weights.W_enc, x_nd, weights.W_enc)
    return torch.addmm(weights.b_enc, x_nd, weights.W_enc)


def activate(cell: Cell, u_nk: Tensor, norm_k: Tensor | None = None) -> Tensor:
    """z [N, K] in training, from pre-activations u [N, K].

    relu       z = max(u, 0)
    topk       z = max(u, 0) at the token's k largest u·‖d‖, else 0
    batchtopk  z = max(u, 0) at the k·N largest u·‖d‖ of the batch, else 0

    `norm_k` is ‖d_k‖ where the rows of W_dec aren't unit. Exactly k (k·N) are chosen also among
    equal values, and what is chosen but not positive does not fire.
    """
    if cell.activation == "relu":
        return torch.relu(u_nk)
    assert cell.k is not None  # the schema sees to it
    with torch.no_grad():
        score = u_nk if norm_k is None else u_nk * norm_k
        if cell.activation == "topk":
            chosen = score.topk(cell.k, dim=1, sorted=False).indices
            mask = torch.zeros_like(score).scatter_(1, chosen, 1.0)
        else:
            flat = score.flatten()
            chosen = flat.topk(min(cell.k * len(u_nk), flat.numel()), sorted=False).indices
            mask = torch.zeros_like(flat).scatter_(0, chosen, 1.0).view_as(score)
    return torch.relu(u_nk) * mask


def decoder_norm(cell: Cell, weights: Weights) -> Tensor | None:
    """‖d_k‖ [K], or None where the rows are kept unit."""
    return None if cell.decoder == "unit_norm" else weights.W_dec.norm(dim=1)


def batchtopk_threshold(scores: Iterable[Tensor], k: int, tokens: int) -> float:
    """τ for inference: the (k·N+1)-th largest of the scores u·‖d‖ of N = `tokens` tokens in all.

    A latent fires if its score is > τ, which lets through k per token on average. With fewer than
    k·N + 1 positive scores τ = 0. `scores` are batches [n, K]; memory O(k·N).
    """
    kept, wanted = torch.empty(0), k * tokens + 1
    for batch in scores:
        kept = torch.cat([kept.to(batch), batch[batch > 0]])
        if len(kept) > 2 * wanted:
            kept = kept.topk(wanted).values
    return float(kept.topk(wanted).values[-1]) if len(kept) >= wanted else 0.0
