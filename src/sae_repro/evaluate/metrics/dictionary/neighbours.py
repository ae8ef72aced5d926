"""Nearest neighbours of decoder rows: copies of one direction in the dictionary."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.evaluate.summary import Summary
from sae_repro.numerics.bootstrap import mean_interval
from sae_repro.numerics.intervals import wilson

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 256  # rows of the K × K cosines held at once
ROUNDING = 1e-5  # more than fp32 rounds two cosines by
FEW = 8  # latents that can be nearest; with more, a product is faster than pair by pair
NEAR = 0.9  # a cosine above it counts as a near copy
NAMES = ("decoder_max_cosine", "decoder_near_copy_fraction")


def decoder_max_cosine(
    w_dec_kd: Tensor, fired_k: npt.NDArray[Any], seed: int
) -> tuple["pd.DataFrame", Summary]:
    """A row per latent: latent, neighbour, decoder_max_cosine; and the metrics of the alive ones.

    `w_dec_kd` [K, D] are the atoms, of any norm; `fired_k` [K] the tokens on which each latent
    fires. The neighbour is the latent with the largest cosine among all others that have an atom,
    the lowest of equals, or −1 (and NaN) where there is none. `decoder_max_cosine` is the mean over
    latents that fire, `decoder_near_copy_fraction` the fraction of them above .9.
    """
    import pandas as pd

    nearest_k, cosine_k = _nearest(w_dec_kd.detach().double())
    nearest, cosine = nearest_k.cpu().numpy(), cosine_k.cpu().numpy()
    frame = pd.DataFrame(
        {
            "latent": np.arange(len(nearest), dtype=np.int32),
            "neighbour": nearest.astype(np.int32),
            "decoder_max_cosine": cosine,
        }
    )
    alive = np.asarray(fired_k) > 0
    scored = cosine[alive & (nearest >= 0)]
    counts = {
        "decoder_latents": len(scored),
        "decoder_latents_dead": int((~alive).sum()),
        "decoder_latents_without_neighbour": int((alive & (nearest < 0)).sum()),
    }
    if not len(scored):
        return frame, Summary(dict.fromkeys(NAMES), counts, {})
    copies = int((scored > NEAR).sum())
    return frame, Summary(
        {NAMES[0]: float(scored.mean()), NAMES[1]: copies / len(scored)},
        counts,
        {
            NAMES[0]: mean_interval(scored, seed, NAMES[0]),
            NAMES[1]: list(wilson(copies, len(scored))),
        },
    )


def _nearest(w_dec_kd: Tensor) -> tuple[Tensor, Tensor]:
    """(neighbour [K], its cosine [K]); −1 and NaN for zero rows and where all others are zero.

    Cosines in fp32 say which latents can be nearest, those in fp64 which one is.
    """
    norm_k = w_dec_kd.norm(dim=1)
    nonzero = norm_k > 0
    unit_kd = w_dec_kd / torch.where(nonzero, norm_k, 1.0)[:, None]
    coarse_kd = unit_kd.float()
    nearest = torch.full_like(norm_k, -1, dtype=torch.int64)
    cosine = torch.full_like(norm_k, torch.nan)
    for start in range(0, len(unit_kd), BLOCK):
        block_bk = coarse_kd[start : start + BLOCK] @ coarse_kd.T
        block_bk[:, ~nonzero] = -torch.inf
        block_bk.diagonal(start).fill_(-torch.inf)
        largest = block_bk.amax(dim=1, keepdim=True)
        scored = largest[:, 0].isfinite() & nonzero[start : start + BLOCK]
        possible_bk = (block_bk >= largest - ROUNDING) & scored[:, None]
        row, latent = possible_bk.nonzero(as_tuple=True)
        crowded = torch.bincount(row, minlength=len(block_bk)) > FEW  # as of orthogonal atoms
        if crowded.any():
            cosine_bk = unit_kd[start : start + BLOCK][crowded] @ unit_kd.T
            value, at = cosine_bk.where(possible_bk[crowded], -torch.inf).max(dim=1)
            rows = start + crowded.nonzero()[:, 0]
            nearest[rows], cosine[rows] = at, value
            row, latent = row[~crowded[row]], latent[~crowded[row]]
        exact = (unit_kd[start + row] * unit_kd[latent]).sum(dim=1)
        # by row, then from the largest on, of equals the first
        order = np.lexsort((-exact.cpu().numpy(), row.cpu().numpy()))
        of_row = row.cpu().numpy()[order]
        first = torch.from_numpy(order[np.flatnonzero(np.diff(of_row, prepend=-1))]).to(row.device)
        rows = start + row[first]
        nearest[rows], cosine[rows] = latent[first], exact[first]
    return nearest, cosine
