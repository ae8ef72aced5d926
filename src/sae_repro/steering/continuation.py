"""Continuations by a language model, and how far its predictions are moved by steering."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.autoencoders import SAE
from sae_repro.autoencoders.atoms import decoder_weights

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

PROMOTED = 10
"""Tokens that stand for what an atom promotes."""


def continued(
    subject: "TransformerBridge",
    rows_nl: Tensor,
    tokens: int,
    *,
    temperature: float = 0.0,
    uniform_nt: npt.NDArray[np.float64] | None = None,
    progress: Callable[[int], Any] | None = None,
) -> Tensor:
    """`rows_nl`, int64 [N, L] of equal lengths, with `tokens` more, [N, L + tokens].

    The likeliest token where `temperature` is 0; else the one at which the cumulative probability
    passes the number of `uniform_nt` [N, tokens] in [0, 1): no generator's state is involved, and
    two models that predict alike write alike. The whole row passes again for each token.
    """
    for step in range(tokens):
        with torch.no_grad():
            logits_nv = _logits(subject(rows_nl))[:, -1].double()
        if temperature == 0:
            chosen_n = logits_nv.argmax(dim=-1)
        else:
            if uniform_nt is None:
                raise ValueError("a temperature needs numbers to choose by")
            chosen_n = drawn(logits_nv / temperature, uniform_nt[:, step])
        rows_nl = torch.cat([rows_nl, chosen_n[:, None]], dim=1)
        if progress:
            progress(1)
    return rows_nl


def drawn(logits_nv: Tensor, uniform_n: npt.NDArray[np.float64]) -> Tensor:
    """The tokens [N] at which the cumulative probability passes the numbers in [0, 1)."""
    # on the CPU: a GPU's running sums are not deterministic
    below_nv = logits_nv.cpu().double().softmax(dim=-1).cumsum(dim=-1)
    u_n = torch.from_numpy(uniform_n) * below_nv[:, -1]
    chosen_n = torch.searchsorted(below_nv, u_n[:, None], right=True)[:, 0]
    return chosen_n.clamp_max(logits_nv.shape[1] - 1).to(logits_nv.device)


def predictions(subject: "TransformerBridge", rows_nl: Tensor) -> Tensor:
    """Log-probabilities [N, L − 1, V] of the next token, at all positions but each row's first."""
    with torch.no_grad():
        return _logits(subject(rows_nl))[:, 1:].double().log_softmax(dim=-1)


def divergence(clean: Tensor, steered: Tensor) -> Tensor:
    """KL(clean ‖ steered) [N, T] of log-probabilities [N, T, V], in nats."""
    return ((clean - steered) * clean.exp()).sum(dim=-1)


def promoted_tokens(
    subject: "TransformerBridge", sae: SAE, latent: int, n: int = PROMOTED
) -> list[int]:
    """The n tokens whose logits the atom of `latent` raises most by itself (nostalgebraist 2020,
    the logit lens): through the final norm, whose offsets cancel between the atom and its opposite.

    Empty where the model has no final norm or unembedding to look through.
    """
    if not hasattr(subject, "ln_final") or not hasattr(subject, "unembed"):
        return []
    atom = decoder_weights(sae, latent)
    with torch.no_grad():
        both = subject.unembed(subject.ln_final(torch.stack([atom, -atom])[:, None, :]))[:, 0]
    raised: Tensor = both[0] - both[1]
    return [int(i) for i in raised.topk(min(n, len(raised))).indices]


def output_score(clean: Tensor, steered: Tensor, promoted: Sequence[int]) -> float:
    """How much steering raises the rank-weighted probability of the tokens that an atom promotes.

    At each position the promoted token that is predicted best, at rank r (0: the likeliest) with
    probability p, counts p·(1 − r/V); the score is the mean over positions, steered − clean, of
    log-probabilities [T, V] each. After Arad, Mueller and Belinkov 2025 (arXiv 2505.20063), who
    take one position of a fixed prompt.
    """
    return float((_weighted(steered, promoted) - _weighted(clean, promoted)).mean())


def _weighted(log_p_tv: Tensor, promoted: Sequence[int]) -> Tensor:
    best_t = log_p_tv[:, list(promoted)].max(dim=1).values
    rank_t = (log_p_tv > best_t[:, None]).sum(dim=1)
    return best_t.exp() * (1 - rank_t / log_p_tv.shape[1])


def _logits(output: Any) -> Tensor:
    logits: Tensor = output
    return logits
