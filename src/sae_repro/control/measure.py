"""An SAE against a world whose atoms are known: latents matched with atoms."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sae_repro.autoencoders import SAE
from sae_repro.control.worlds import Atoms, Sample, cosines

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Matching:
    """One SAE against one world. An atom without a latent of its own has match −1."""

    match_f: npt.NDArray[np.int64]
    """The latent of each atom: the assignment with the largest sum of signed cosines."""
    cosine_f: Floats
    precision_f: Floats
    recall_f: Floats
    f1_f: Floats
    hole_p: dict[int, float]
    """Per parent, the mean over its children in the sample of P(its latent silent | child)."""
    childless_recall_p: dict[int, float]
    """Per parent that is alone in the sample, P(its latent fires | parent on, no child on)."""
    child_parent_cosine: float
    """Mean cosine of a child's decoder row with its parent's true direction; 0 is right if
    atoms are orthogonal, > 0 is absorption."""
    l0: float
    fvu: float
    z_nk: npt.NDArray[np.float32]
    """The code of the sample."""

    def summary(self, atoms: Atoms) -> dict[str, float | None]:
        """The row of a table; None where the sample has nothing to measure on."""
        parents = atoms.parents
        row: dict[str, float | None] = {
            "matched_cosine": float(self.cosine_f.mean()),
            "f1": float(self.f1_f.mean()),
            "l0": self.l0,
            "fvu": self.fvu,
        }
        if parents:
            row |= {
                "parent_recall": float(self.recall_f[parents].mean()),
                "parent_childless_recall": _mean(self.childless_recall_p),
                "hole_rate": _mean(self.hole_p),
                "child_parent_cosine": self.child_parent_cosine,
            }
        return row


def _mean(values: dict[int, float]) -> float | None:
    return float(np.mean([*values.values()])) if values else None


def assign(cosine_fk: Floats) -> npt.NDArray[np.int64]:
    """The latent of each atom (−1: none left), the sum of signed cosines as large as can be.

    Signed: z ≥ 0, so that a latent which points the other way is no match.
    """
    from scipy.optimize import linear_sum_assignment

    match_f = np.full(len(cosine_fk), -1, dtype=np.int64)
    rows, columns = linear_sum_assignment(cosine_fk, maximize=True)
    match_f[rows] = np.where(cosine_fk[rows, columns] > 0, columns, -1)
    return match_f


def measure(sae: SAE, atoms: Atoms, sample: Sample) -> Matching:
    """Match the SAE's latents with `atoms` and see whether they fire where the atoms are on."""
    w_dec = sae.weights.W_dec.detach().double().numpy()
    cosine_fk = cosines(atoms.directions_fd, w_dec)
    match_f = assign(cosine_fk)
    matched = match_f >= 0
    x_nd = torch.from_numpy(sample.x_nd)
    with torch.no_grad():
        z_nk = sae.encode(x_nd)
        x_hat = sae.decode(z_nk).double().numpy()
    fires = (z_nk > 0).numpy()
    fires_nf = np.where(matched, fires[:, match_f], False)
    on_nf = sample.a_nf > 0
    hits = (fires_nf & on_nf).sum(0)
    precision, recall = _ratio(hits, fires_nf.sum(0)), _ratio(hits, on_nf.sum(0))
    hole, childless = {}, {}
    for parent in atoms.parents:
        children = atoms.children(parent)
        silent = ~fires_nf[:, parent]
        hole_rates = [silent[on_nf[:, c]].mean() for c in children if on_nf[:, c].any()]
        if hole_rates:
            hole[parent] = float(np.mean(hole_rates))
        childless_rows = on_nf[:, parent] & ~on_nf[:, children].any(1)
        if childless_rows.any():
            childless[parent] = float(fires_nf[childless_rows, parent].mean())
    child = np.flatnonzero((atoms.parent_f >= 0) & matched)
    to_parent = cosine_fk[atoms.parent_f[child], match_f[child]] if len(child) else np.zeros(1)
    centred = sample.x_nd - sample.x_nd.mean(0, dtype=np.float64)
    return Matching(
        match_f=match_f,
        cosine_f=np.where(matched, cosine_fk[np.arange(len(match_f)), match_f], 0.0),
        precision_f=precision,
        recall_f=recall,
        f1_f=_ratio(2 * hits, fires_nf.sum(0) + on_nf.sum(0)),
        hole_p=hole,
        childless_recall_p=childless,
        child_parent_cosine=float(to_parent.mean()),
        l0=float(fires.sum() / len(fires)),
        fvu=float(np.square(sample.x_nd - x_hat).sum() / np.square(centred).sum()),
        z_nk=z_nk.numpy(),
    )


def _ratio(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    return np.where(b > 0, a / np.maximum(b, 1), 0.0)
