"""Does a latent that other seeds find again have an atom of the world behind it?

The SAEs of a recipe differ in their seed, and in the rows they saw, of one world; trees of other
seeds are the same tree, turned. Their stability is measured as on a language model's activations
(`evaluate.consistency`), and set against the truth, which is known here alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.autoencoders import SAE
from sae_repro.autoencoders.partners import Directions, Match, agreed_cosines, stability, unit
from sae_repro.control.measure import Matching
from sae_repro.numerics.pairs import jackknife

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RECOVERED = 0.9
"""A latent recovers an atom by decoder and encoder: matched one to one, the signed cosine of its
row with the atom and the F1 of its firing for the atom are both above. By the row alone, the latent
of a parent that is silent on its children would count."""
SHARED = 0.7
"""As in `evaluate.consistency`: decoder cosine of latents that another seed has, too."""


@dataclass(frozen=True)
class Learnt:
    """The alive latents of an SAE, and which of them recover an atom."""

    directions: Directions
    recovered_k: Mask

    @classmethod
    def of(cls, sae: SAE, alive_k: Mask, matching: Matching) -> "Learnt":
        """Of an SAE that was matched with the atoms of its world."""
        right_f = (matching.cosine_f > RECOVERED) & (matching.f1_f > RECOVERED)
        recovered_k = np.zeros(len(alive_k), dtype=bool)
        recovered_k[matching.match_f[right_f]] = True
        alive = np.flatnonzero(alive_k)
        return cls(Directions.of(sae.weights, alive), recovered_k[alive])

    def along(self, atoms_fd: npt.NDArray[Any]) -> "Learnt":
        """The same in the coordinates of orthogonal atoms, outside of whose span nothing lies.

        There the SAEs of worlds that differ in a rotation can be compared.
        """
        basis_fd, d = unit(atoms_fd), self.directions
        encoder_kf, decoder_kf = (unit(rows @ basis_fd.T) for rows in (d.encoder_kd, d.decoder_kd))
        return Learnt(Directions(d.latent, encoder_kf, decoder_kf), self.recovered_k)

    def save(self, path: Path) -> None:
        """Write it, as .npz."""
        d = self.directions
        np.savez(path, latent=d.latent, encoder=d.encoder_kd, decoder=d.decoder_kd,
                 recovered=self.recovered_k)  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> "Learnt":
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as saved:
            directions = Directions(saved["latent"], saved["encoder"], saved["decoder"])
            return cls(directions, saved["recovered"])


def prediction(members: Sequence[Learnt]) -> dict[str, Any]:
    """How well stability tells the latents that recover an atom from the others.

    `stability_auc` is the mean over pairs of SAEs, with the jackknife's interval over seeds, which
    is missing where a pair has none. Shared latents are those that every other SAE has.
    """
    pairs = [*combinations(range(len(members)), 2)]
    aucs = {(i, j): auc for i, j in pairs
            if (auc := stability_auc((members[i], members[j]))) is not None}  # fmt: skip
    _, low, high = jackknife(aucs if len(aucs) == len(pairs) else {})
    known = not math.isnan(low)
    recovered = np.concatenate([m.recovered_k for m in members]) if members else np.empty(0, bool)
    shared = _shared(members) if pairs else np.zeros(len(recovered), dtype=bool)
    return {
        "seeds": len(members),
        "latents": len(recovered),
        "recovered": int(recovered.sum()),
        "stability_auc": float(np.mean([*aucs.values()])) if aucs else None,
        "stability_auc_low": max(0.0, low) if known else None,
        "stability_auc_high": min(1.0, high) if known else None,
        "shared": int(shared.sum()),
        "shared_recovered": int((shared & recovered).sum()),
    }


def stability_auc(members: Sequence[Learnt]) -> float | None:
    """AUC of stability for "the latent recovers an atom", over the alive latents of all members.

    None where all latents do, or none does.
    """
    pairs = combinations(range(len(members)), 2)
    matches = {(i, j): Match.of(members[i].directions, members[j].directions) for i, j in pairs}
    stable = [stability(n, len(m.recovered_k), matches) for n, m in enumerate(members)]
    return _auc(np.concatenate(stable), np.concatenate([m.recovered_k for m in members]))


def _shared(members: Sequence[Learnt]) -> Mask:
    """Of the latents of all members in turn, whether every other member has them."""
    found = [np.ones(len(m.recovered_k), dtype=bool) for m in members]
    for i, j in combinations(range(len(members)), 2):
        if not (len(found[i]) and len(found[j])):
            found[i][:], found[j][:] = False, False
            continue
        agreed = agreed_cosines(members[i].directions, members[j].directions)
        for member, cosine in zip((i, j), agreed, strict=True):
            found[member] &= cosine > SHARED
    return np.concatenate(found)


def _auc(score: Floats, positive: Mask) -> float | None:
    """P(the score of a positive > that of a negative), ties one half."""
    negatives = int((~positive).sum())
    if not negatives or negatives == len(positive):
        return None
    above = score[positive][:, None] - score[~positive][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())
