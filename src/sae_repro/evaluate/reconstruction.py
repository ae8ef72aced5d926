"""One pass over the validation activations: firing and reconstruction, in fp64 accumulators.

Every number is a ratio of sums over all tokens, never a mean of batch ratios: it does not depend on
the batch size or on the order of the shards. Memory is O(K·bins + documents).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.autoencoders import SAE
from sae_repro.evaluate.codes import Code, code_of
from sae_repro.evaluate.quantiles import BINS, bin_of

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Batch = tuple[Tensor, npt.NDArray[np.int32]]
"""Activations x [n, D] fp32, and their index [n, 3]: document, position, token."""


@dataclass
class Totals:
    """Sums over all evaluated tokens; the metrics of `summarise` are their ratios."""

    tokens: int
    fired_k: Counts
    sum_k: Floats
    max_k: Floats
    histogram_kb: Counts
    document: Counts
    """Ids of the documents seen, sorted; the next four have a value per document."""
    document_tokens: Counts
    document_l0: Floats
    document_error: Floats
    document_variance: Floats
    absolute_error: float
    cosine: float
    cosine_square: float
    zero_norm: int
    norm_in: float
    norm_out: float
    norm_in_square: float


def mean_of(batches: Iterable[Batch], d_in: int) -> tuple[Floats, int, Counts]:
    """(x̄ [D], tokens, sorted document ids) over all evaluated tokens."""
    total, tokens = np.zeros(d_in), 0
    documents: list[npt.NDArray[Any]] = []
    for x_nd, index in batches:
        total += x_nd.double().sum(0).cpu().numpy()
        tokens += len(x_nd)
        documents.append(np.unique(index[:, 0]))
    return total / max(tokens, 1), tokens, np.unique(np.concatenate(documents)).astype(np.int64)


def accumulate(
    sae: SAE,
    batches: Iterable[Batch],
    mean_d: Floats,
    document: Counts,
    keep: Callable[[Code], None] = lambda code: None,
) -> Totals:
    """Run the SAE over all batches. `mean_d` is x̄ and `document` the ids, from `mean_of`.

    `keep` is handed each batch's code, so that nobody has to encode it again.
    """
    k, n = sae.d_sae, len(document)
    t = Totals(
        tokens=0,
        fired_k=np.zeros(k, dtype=np.int64),
        sum_k=np.zeros(k),
        max_k=np.zeros(k),
        histogram_kb=np.zeros((k, BINS), dtype=np.int64),
        document=document,
        document_tokens=np.zeros(n, dtype=np.int64),
        document_l0=np.zeros(n),
        document_error=np.zeros(n),
        document_variance=np.zeros(n),
        absolute_error=0.0,
        cosine=0.0,
        cosine_square=0.0,
        zero_norm=0,
        norm_in=0.0,
        norm_out=0.0,
        norm_in_square=0.0,
    )
    for x_nd, index in batches:
        with torch.no_grad():
            z_nk = sae.encode(x_nd)
            x_hat = sae.decode(z_nk).double()
        code = code_of(z_nk, index)
        keep(code)
        _add_firing(t, code)
        l0_n = np.bincount(code.row, minlength=len(x_nd))
        _add_reconstruction(t, x_nd.double(), x_hat, mean_d, index, l0_n)
        t.tokens += len(x_nd)
    return t


def _add_firing(t: Totals, code: Code) -> None:
    k, value = len(t.fired_k), code.value.astype(np.float64)
    t.fired_k += np.bincount(code.latent, minlength=k)
    t.sum_k += np.bincount(code.latent, weights=value, minlength=k)
    np.maximum.at(t.max_k, code.latent, value)
    flat = code.latent * BINS + bin_of(code.value)
    t.histogram_kb += np.bincount(flat, minlength=t.histogram_kb.size).reshape(t.histogram_kb.shape)


def _add_reconstruction(
    t: Totals,
    x_nd: Tensor,
    x_hat: Tensor,
    mean_d: Floats,
    index: npt.NDArray[np.int32],
    l0_n: npt.NDArray[np.int64],
) -> None:
    error = x_nd - x_hat
    centred = x_nd - torch.from_numpy(mean_d).to(x_nd.device)
    where = np.searchsorted(t.document, index[:, 0])
    np.add.at(t.document_tokens, where, 1)
    np.add.at(t.document_l0, where, l0_n)
    np.add.at(t.document_error, where, error.square().sum(1).cpu().numpy())
    np.add.at(t.document_variance, where, centred.square().sum(1).cpu().numpy())
    norm_in, norm_out = x_nd.norm(dim=1), x_hat.norm(dim=1)
    usable = (norm_in > 0) & (norm_out > 0)
    cosine = ((x_nd * x_hat).sum(1) / (norm_in * norm_out))[usable]
    t.absolute_error += float(error.abs().sum())
    t.cosine += float(cosine.sum())
    t.cosine_square += float(cosine.square().sum())
    t.zero_norm += int((~usable).sum())
    t.norm_in += float(norm_in.sum())
    t.norm_out += float(norm_out.sum())
    t.norm_in_square += float(norm_in.square().sum())


def summarise(t: Totals, d_in: int, dead_threshold: float) -> dict[str, float | None]:
    """The metrics of firing and reconstruction, named with their units; see the README's table."""
    k = len(t.fired_k)
    density = t.fired_k / t.tokens
    error, variance = float(t.document_error.sum()), float(t.document_variance.sum())
    fvu = error / variance if variance > 0 else None
    cosines = t.tokens - t.zero_norm
    cosine = t.cosine / cosines if cosines else None
    return {
        "l0": float(t.fired_k.sum()) / t.tokens,
        "dead_fraction_never": float((t.fired_k == 0).sum()) / k,
        "dead_fraction_below": float((t.max_k < dead_threshold).sum()) / k,
        "dead_fraction_below_relative": float((t.max_k < relative_threshold(t)).sum()) / k,
        "density_mean": float(density.mean()),
        "density_median": float(np.median(density)),
        "density_max": float(density.max()),
        "fvu": fvu,
        "explained_variance": None if fvu is None else 1 - fvu,
        "squared_error_per_token": error / t.tokens,
        "mse_per_dim": error / (t.tokens * d_in),
        "mae_per_dim": t.absolute_error / (t.tokens * d_in),
        "cosine": cosine,
        "cosine_sd": None
        if cosine is None
        else float(np.sqrt(max(0.0, t.cosine_square / cosines - cosine**2))),
        "relative_norm": t.norm_out / t.norm_in if t.norm_in > 0 else None,
    }


def relative_threshold(t: Totals) -> float:
    """1e-3 · √(mean ‖x‖²): a threshold of silence that follows the activations' scale."""
    return float(1e-3 * np.sqrt(t.norm_in_square / t.tokens))
