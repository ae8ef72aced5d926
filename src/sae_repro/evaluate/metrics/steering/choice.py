"""Latents and directions of concepts, chosen on the fit half of the held-out documents."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor

from sae_repro.evaluate.first_pass import FirstPass
from sae_repro.evaluate.metrics.monosemanticity.agreement import phi
from sae_repro.evaluate.metrics.monosemanticity.counts import at_thresholds
from sae_repro.evaluate.metrics.monosemanticity.firings import firings
from sae_repro.numerics.hashing import least_hash

Ints = npt.NDArray[np.int64]

LEAST = 100
"""Activations on the fit half of a latent that is drawn at random."""
DENSE = 0.2
"""Of the tokens: a latent that fires more often is drawn no more than a dead one."""
LATENTS = 512  # whose counts are held at once


@dataclass(frozen=True)
class Choice:
    """Per concept of the bank in question, the latent that means it, and its direction."""

    latent: dict[str, int]
    phi: dict[str, float]
    """On the fit half, at the best of the thresholds."""
    means: dict[str, Tensor]
    """Unit vectors [D] from the tokens without the concept to those with it."""
    random: list[int]
    """Latents drawn among those that fire often enough and mean none of the concepts."""


def chosen(first_pass: FirstPass, concepts: Sequence[str], draws: int, name: int) -> Choice:
    """The choice for those of `concepts` that the bank has.

    A latent is chosen as for M: of all latents and thresholds, the largest φ with the concept.
    """
    bank = first_pass.bank
    known = [concept for concept in concepts if concept in bank.names]
    columns = [bank.names.index(concept) for concept in known]
    labels_nc = csr_array(bank.labels[:, columns])
    phi_kc, fires_k = _agreement(first_pass, labels_nc)
    best = phi_kc.argmax(axis=0)
    density = fires_k / max(1, int(bank.fit.sum()))
    often = np.flatnonzero((fires_k >= LEAST) & (density <= DENSE))
    others = np.setdiff1d(often, best)
    return Choice(
        latent={concept: int(k) for concept, k in zip(known, best, strict=True)},
        phi={c: float(phi_kc[k, i]) for i, (c, k) in enumerate(zip(known, best, strict=True))},
        means=dict(zip(known, _differences_of_means(first_pass, labels_nc), strict=True)),
        random=least_hash(
            others, draws, first_pass.study.seed, f"steering/{name}/latents"
        ).tolist(),
    )


def _agreement(first_pass: FirstPass, labels_nc: csr_array) -> tuple[npt.NDArray[np.float64], Ints]:
    """(φ [K, C] at the best threshold, activations [K]), both on the fit half."""
    bank, rows_nc = first_pass.bank, labels_nc.astype(np.int32)
    positives_c = labels_nc.T.astype(np.int64) @ bank.fit.astype(np.int64)
    n = int(bank.fit.sum())
    phis, fires = [], []
    for _, block in firings(first_pass.canonical, bank, first_pass.totals.fired_k):
        for begin in range(0, block.shape[0], LATENTS):
            levels = at_thresholds(block[begin : begin + LATENTS], bank.fit, rows_nc)
            phi_ktc = phi(levels.both_ktc, levels.fires_kt[:, :, None], positives_c, n)
            phis.append(phi_ktc.max(axis=1))
            fires.append(levels.fires_kt[:, 0])
    return np.concatenate(phis), np.concatenate(fires)


def _differences_of_means(first_pass: FirstPass, labels_nc: csr_array) -> list[Tensor]:
    """Per concept the unit vector between the means of x [D], over the tokens of the fit half."""
    bank, d_in = first_pass.bank, first_pass.sae.d_in
    with_cd, total_d = np.zeros((labels_nc.shape[1], d_in)), np.zeros(d_in)
    for x_nd, index in first_pass.batches():
        rows = bank.rows(index)
        fit = bank.fit[rows]
        x = x_nd.double().cpu().numpy()[fit]
        with_cd += labels_nc[rows[fit]].T.astype(np.float64) @ x
        total_d += x.sum(axis=0)
    positives_c = labels_nc.T.astype(np.int64) @ bank.fit.astype(np.int64)
    n = int(bank.fit.sum())
    directions = with_cd / positives_c[:, None] - (total_d - with_cd) / (n - positives_c)[:, None]
    unit = directions / np.sqrt(np.square(directions).sum(axis=1, keepdims=True))
    return [torch.from_numpy(row).float().to(first_pass.study.settings.device) for row in unit]
