"""Does a latent that other seeds find again have an atom of the world behind it?"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from sae_repro.autoencoders import SAE
from sae_repro.autoencoders.partners import Directions, Match, cosines, one_to_one, stability, unit
from sae_repro.control.worlds import Atoms, Sample

RECOVERED = 0.9
"""Signed cosine of a decoder row with the atom that it is matched with."""


def stability_auc(saes: Sequence[SAE], atoms: Atoms, sample: Sample) -> float | None:
    """AUC of stability for "the latent is an atom", over the alive latents of `saes` together.

    The SAEs differ in their seed alone. A latent is an atom where its one-to-one match with the
    atoms has a signed cosine above `RECOVERED`. None where all latents are atoms, or none is.
    """
    import torch

    x_nd = torch.from_numpy(sample.x_nd)
    with torch.no_grad():
        alive = [np.flatnonzero((sae.encode(x_nd) > 0).any(dim=0).numpy()) for sae in saes]
    members = [Directions.of(s.weights, latent) for s, latent in zip(saes, alive, strict=True)]
    pairs = combinations(range(len(saes)), 2)
    matches = {(i, j): Match.of(members[i], members[j]) for i, j in pairs}
    stable, recovered = [], []
    for number, member in enumerate(members):
        signed = cosines(unit(atoms.directions_fd), member.decoder_kd)
        atom, latent = one_to_one(signed)
        is_atom = np.zeros(len(member.latent), dtype=bool)
        is_atom[latent] = signed[atom, latent] > RECOVERED
        recovered.append(is_atom)
        stable.append(stability(number, len(member.latent), matches))
    return _auc(np.concatenate(stable), np.concatenate(recovered))


def _auc(
    score: "np.typing.NDArray[np.float64]", positive: "np.typing.NDArray[np.bool_]"
) -> float | None:
    """P(the score of a positive > that of a negative), ties one half."""
    negatives = int((~positive).sum())
    if not negatives or negatives == len(positive):
        return None
    above = score[positive][:, None] - score[~positive][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())
