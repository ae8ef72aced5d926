"""Canonical activations of a few latents over all held-out tokens, and their nearest latents."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csc_array
from torch import Tensor

from sae_repro.autoencoders import LATENT_AXIS, SAE

BATCH = 4096  # rows encoded at once


def activations(sae: SAE, batches: Iterable[Tensor], latents: Sequence[int]) -> csc_array:
    """Canonical activations a = z·‖d_k‖ of `latents`, fp32 [N, latents], zeros left out.

    Latents that don't compete for a place (TopK's do) are computed without the others.
    """
    chosen = torch.tensor(latents, dtype=torch.int64, device=sae.weights.W_dec.device)
    norm_k = sae.weights.W_dec.norm(dim=1)[chosen]
    part = sae if sae.latents_compete else restricted(sae, chosen)
    parts: list[list[npt.NDArray[Any]]] = [[], [], []]
    offset = 0
    for x_nd in batches:
        with torch.no_grad():
            z_nk = part.encode(x_nd)
        a_nk = (z_nk[:, chosen] if part is sae else z_nk) * norm_k
        row, column = a_nk.nonzero(as_tuple=True)
        for values, new in zip(parts, (a_nk[row, column], row + offset, column), strict=True):
            values.append(new.cpu().numpy())
        offset += len(x_nd)
    value, row_n, column_n = (np.concatenate(arrays) for arrays in parts)
    return csc_array((value, (row_n, column_n)), shape=(offset, len(latents)))


def restricted(sae: SAE, latents: Tensor) -> SAE:
    """The SAE with `latents` alone, in their order; each is computed as in the whole."""
    named: dict[str, Any] = {
        name: tensor.index_select(LATENT_AXIS[name], latents) if name in LATENT_AXIS else tensor
        for name, tensor in sae.weights.named().items()
    }
    return replace(sae, weights=replace(sae.weights, **named))


def nearest(sae: SAE, latents: Sequence[int], alive_k: npt.NDArray[np.bool_]) -> list[int | None]:
    """For each of `latents` the alive one with the nearest atom by cosine; None without another."""
    atoms_kd = torch.nn.functional.normalize(sae.weights.W_dec, dim=1)
    cosine_nk = (atoms_kd[list(latents)] @ atoms_kd.T).cpu().numpy()
    cosine_nk[:, ~alive_k] = -np.inf
    cosine_nk[np.arange(len(latents)), list(latents)] = -np.inf
    best = cosine_nk.argmax(axis=1)
    return [int(k) if np.isfinite(cosine_nk[i, k]) else None for i, k in enumerate(best.tolist())]
