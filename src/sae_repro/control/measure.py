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
    fires_nk = (z_nk > 0).numpy()
    on_fn = sample.on_fn
    # a row per atom, whose bits are counted in one sweep
    fires_fn = np.zeros_like(on_fn)
    fires_fn[matched] = fires_nk[:, match_f[matched]].T
    fires_f, on_f, hits = _count(fires_fn), _count(on_fn), _count(fires_fn & on_fn)
    precision, recall = _ratio(hits, fires_f), _ratio(hits, on_f)
    hole, childless = {}, {}
    for parent in atoms.parents:
        children = [child for child in atoms.children(parent).tolist() if on_f[child]]
        silent = _count(on_fn[children] & ~fires_fn[parent])
        if children:
            hole[parent] = float(np.mean(silent / on_f[children]))
        childless_n = on_fn[parent] & ~on_fn[children].any(0)
        if childless_rows := np.count_nonzero(childless_n):
            fired = np.count_nonzero(fires_fn[parent] & childless_n)
            childless[parent] = float(fired / childless_rows)
    child = np.flatnonzero((atoms.parent_f >= 0) & matched)
    to_parent = cosine_fk[atoms.parent_f[child], match_f[child]] if len(child) else np.zeros(1)
    return Matching(
        match_f=match_f,
        cosine_f=np.where(matched, cosine_fk[np.arange(len(match_f)), match_f], 0.0),
        precision_f=precision,
        recall_f=recall,
        f1_f=_ratio(2 * hits, fires_f + on_f),
        hole_p=hole,
        childless_recall_p=childless,
        child_parent_cosine=float(to_parent.mean()),
        l0=np.count_nonzero(fires_nk) / len(fires_nk),
        fvu=float(np.square(sample.x_nd - x_hat).sum()) / sample.power,
        z_nk=z_nk.numpy(),
    )


def _count(bits_fn: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """How many of each row are set."""
    return np.array([np.count_nonzero(row) for row in bits_fn], dtype=np.int64)


def _ratio(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    return np.where(b > 0, a / np.maximum(b, 1), 0.0)
