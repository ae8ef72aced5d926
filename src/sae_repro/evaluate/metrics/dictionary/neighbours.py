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

BLOCK = 1024  # rows of the K × K cosines held at once
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
    """(neighbour [K], its cosine [K]); −1 and NaN for zero rows and where all others are zero."""
    norm_k = w_dec_kd.norm(dim=1)
    nonzero = norm_k > 0
    unit_kd = w_dec_kd / torch.where(nonzero, norm_k, 1.0)[:, None]
    nearest = torch.full_like(norm_k, -1, dtype=torch.int64)
    cosine = torch.full_like(norm_k, torch.nan)
    for start in range(0, len(unit_kd), BLOCK):
        block_bk = unit_kd[start : start + BLOCK] @ unit_kd.T
        block_bk[:, ~nonzero] = -torch.inf
        block_bk.diagonal(start).fill_(-torch.inf)
        value, latent = block_bk.max(dim=1)
        scored = torch.zeros_like(nonzero)
        scored[start : start + BLOCK] = value.isfinite()
        scored &= nonzero
        nearest[scored] = latent[scored[start : start + BLOCK]]
        cosine[scored] = value[scored[start : start + BLOCK]]
    return nearest, cosine
