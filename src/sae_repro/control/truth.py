"""Scores of an SAE on a spec file's world, in the measures of the literature on known atoms.

MCC, uniqueness, precision, recall and F1 are those of SynthSAEBench (arXiv:2602.14687): a latent is
compared with its nearest atom by |cosine|, and means are over latents, dead ones counting 0. The
matched measures of `control.measure` go from the atoms instead.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.control.worlds import cosines

Floats = npt.NDArray[Any]

SINGLE, PAIR = 0.9, 0.9
"""A latent is composed if no atom's |cosine| with its row reaches the first, while the plane of
two holds the second's share of its norm."""
IN_CIRCLE = 0.9
"""Share of a row's norm in the plane of a circle, of a latent that lies on it."""
RANK_OF_WIDTH = 8
"""K over the n of `decoder_projection`."""
PROJECTED = 8192
"""Rows whose projections are sorted, at most."""


def recovery(z_nk: Floats, a_nf: Floats, w_dec_kd: Floats, atoms_fd: Floats) -> dict[str, float]:
    """Measures of activations z [n, K] against a [n, F], and of decoder rows against atoms."""
    cosine_kf = np.abs(cosines(w_dec_kd, atoms_fd))
    nearest_k = cosine_kf.argmax(axis=1)
    fires_nk, on_nf = z_nk != 0, a_nf > 0
    alive_k: npt.NDArray[np.bool_] = np.any(fires_nk, axis=0)
    hits_k = np.array(
        [np.count_nonzero(fires_nk[:, k] & on_nf[:, f]) for k, f in enumerate(nearest_k)]
    )
    precision_k = _ratio(hits_k, fires_nk.sum(0))
    recall_k = _ratio(hits_k, on_nf.sum(0)[nearest_k])
    f1_k = _ratio(2 * precision_k * recall_k, precision_k + recall_k)
    return {
        "mcc": mcc(cosine_kf),
        "uniqueness": len(np.unique(nearest_k)) / len(nearest_k),
        "latent_precision": float(precision_k.mean()),
        "latent_recall": float(recall_k.mean()),
        "latent_f1": float(f1_k.mean()),
        "true_l0": float(on_nf.sum() / len(on_nf)),
        "hedging": hedging(cosine_kf, atoms_fd, alive_k),
        "composed_fraction": composed(w_dec_kd, atoms_fd, cosine_kf, alive_k),
    }


def mcc(cosine_kf: Floats) -> float:
    """Mean |cosine| of latents and atoms in the one-to-one matching where it is largest."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(cosine_kf, maximize=True)
    return float(cosine_kf[rows, columns].mean())


def hedging(cosine_kf: Floats, atoms_fd: Floats, alive_k: npt.NDArray[np.bool_]) -> float:
    """How far alive latents lean on a second atom, beyond what their own atom does.

    Mean over latents of the largest |cos(row, g)| − |cos(own atom, g)| over the other atoms g, 0
    where none is positive. Latents of a narrow SAE hold parts of correlated atoms that have no
    latent of their own (Chanin, Dulka and Garriga-Alonso 2025, arXiv:2505.11756); those that absorb
    lean, too.
    """
    alive = np.flatnonzero(alive_k)
    if not len(alive):
        return float("nan")
    cosine_af = cosine_kf[alive]
    own = cosine_af.argmax(axis=1)
    excess_af = cosine_af - np.abs(cosines(atoms_fd[own], atoms_fd))
    excess_af[np.arange(len(own)), own] = 0
    return float(np.maximum(excess_af.max(axis=1), 0).mean())


def composed(
    w_dec_kd: Floats, atoms_fd: Floats, cosine_kf: Floats, alive_k: npt.NDArray[np.bool_]
) -> float:
    """Fraction of the alive latents that are two atoms at once, and neither of them."""
    alive = np.flatnonzero(alive_k)
    if not len(alive):
        return float("nan")
    pair = np.argsort(-cosine_kf[alive], axis=1, kind="stable")[:, :2]
    rows = w_dec_kd[alive].astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    unit_fd = atoms_fd / np.linalg.norm(atoms_fd, axis=1, keepdims=True).astype(np.float64)
    first, second = unit_fd[pair[:, 0]], unit_fd[pair[:, 1]]
    second = second - (second * first).sum(1, keepdims=True) * first
    second /= np.maximum(np.linalg.norm(second, axis=1, keepdims=True), 1e-30)
    in_plane = np.hypot((rows * first).sum(1), (rows * second).sum(1))
    single = cosine_kf[alive, pair[:, 0]]
    return float(((single < SINGLE) & (in_plane >= PAIR)).mean())


def decoder_projection(x_nd: Floats, w_dec_kd: Floats, b_dec_d: Floats) -> float:
    """The n-th largest projection per row of x − b_dec onto the decoder's rows of norm 1, n = K/8.

    s_n of Chanin and Garriga-Alonso 2025, arXiv:2508.16560v1: of all N · K projections that of rank
    n · N, here over the root mean square of ‖x − b_dec‖. It is smallest at the right L0, because
    rows that mix atoms project on what they should not; n has to be above that L0.
    """
    norm = np.linalg.norm(w_dec_kd, axis=1, keepdims=True)
    centred = x_nd[:PROJECTED] - b_dec_d
    projected = (centred @ (w_dec_kd / np.where(norm > 0, norm, 1)).T).ravel()
    rank = max(1, len(w_dec_kd) // RANK_OF_WIDTH) * len(centred)
    largest = np.partition(projected, len(projected) - rank)[len(projected) - rank]
    return float(largest / np.sqrt(np.square(centred, dtype=np.float64).sum(1).mean()))


def pairwise_cosine(w_dec_kd: Floats, alive_k: npt.NDArray[np.bool_]) -> float:
    """Mean |cosine| of two alive latents' decoder rows, which mixing correlated atoms raises."""
    rows = w_dec_kd[alive_k]
    k = len(rows)
    if k < 2:
        return float("nan")
    cosine_kk = np.abs(cosines(rows, rows))
    return float((cosine_kk.sum() - np.trace(cosine_kk)) / (k * (k - 1)))


def latents_per_circle(
    w_dec_kd: Floats, circle_cd: tuple[Floats, Floats], alive_k: npt.NDArray[np.bool_]
) -> float:
    """Mean over circles of the alive latents whose row lies in the circle's plane.

    A circle has two dimensions; more latents than that tile it (arXiv:2509.02565).
    """
    u_cd, v_cd = circle_cd
    in_plane_kc = np.hypot(cosines(w_dec_kd, u_cd), cosines(w_dec_kd, v_cd))
    return float((in_plane_kc[alive_k] >= IN_CIRCLE).sum(0).mean())


def _ratio(a: Floats, b: Floats) -> npt.NDArray[np.float64]:
    return np.divide(a, b, out=np.zeros(len(a)), where=b > 0)
