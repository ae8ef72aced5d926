"""The registry's metrics on a world: what `evaluate` measures on text, with atoms as concepts.

Whether a metric follows the truth, F1 of matched atoms, is known only here (`compare.cards`). As in
`evaluate`, what is chosen (the latent of an atom, the atom of a latent) is chosen on one half of
the rows and scored on the other.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.control.worlds import cosines

Floats = npt.NDArray[Any]

ROWS = 10_000
"""Held-out rows used, at most."""
AUC_ROWS = 4_000
LEAST = 10
"""Rows of either half that an atom must be on in."""
COVERED, PRECISE, MONOSEMANTIC, NEAR_COPY = 0.5, 0.8, 0.7, 0.9
"""As in `evaluate`: least φ, precision, M; cosine of a near copy."""


def scores(z_nk: Floats, on_nf: npt.NDArray[np.bool_], w_dec_kd: Floats) -> dict[str, float]:
    """Metrics of activations [N, K] where atoms [N, F] are on; fewer without atoms or latents."""
    z_nk, on_nf = z_nk[:ROWS], on_nf[:ROWS]
    alive_k: npt.NDArray[np.bool_] = np.any(z_nk > 0, axis=0)
    half = len(z_nk) // 2
    kept_f = np.minimum(on_nf[:half].sum(0), on_nf[half:].sum(0)) >= LEAST
    z, on = z_nk[:, alive_k], on_nf[:, kept_f].astype(np.float32)
    result = {"dead_fraction_never": float(1 - alive_k.mean()), **_rows(w_dec_kd[alive_k])}
    if not z.shape[1] or not on.shape[1]:
        return result
    fit, test = slice(0, half), slice(half, len(z))
    share = z.shape[1] / len(alive_k)
    m_k = _monosemanticity(z, on, fit, test)
    short = slice(0, min(half, AUC_ROWS // 2)), slice(half, min(len(z), half + AUC_ROWS // 2))
    return result | _coverage(z > 0, on, fit, test) | {
        "monosemantic_fraction": share * float((m_k >= MONOSEMANTIC).mean()),
        "monosemantic_fraction_alive": float((m_k >= MONOSEMANTIC).mean()),
        "monosemantic_mean": float(m_k.mean()),
        "probe_auc_1": _auc(z, on, *short),
    }  # fmt: skip


def _rows(w_kd: Floats) -> dict[str, float]:
    """Each atom of the dictionary and its nearest neighbour."""
    if len(w_kd) < 2:
        return {}
    cosine_kk = cosines(w_kd, w_kd)
    np.fill_diagonal(cosine_kk, -1)
    nearest_k = cosine_kk.max(axis=1)
    return {
        "decoder_max_cosine": float(nearest_k.mean()),
        "decoder_near_copy_fraction": float((nearest_k > NEAR_COPY).mean()),
    }


def _coverage(
    fires_nk: npt.NDArray[np.bool_], on_nf: Floats, fit: slice, test: slice
) -> dict[str, float]:
    """Atoms with a latent of φ ≥ .5; recall of the best latent of precision ≥ .8, else 0."""
    fires = fires_nk.astype(np.float32)
    phi, precision, recall = zip(
        *(_agreement(fires[part], on_nf[part]) for part in (fit, test)), strict=True
    )
    atoms = np.arange(on_nf.shape[1])
    best = phi[0].argmax(axis=1)
    precise_recall = np.where(precision[0] >= PRECISE, recall[0], -1.0)
    precise = precise_recall.argmax(axis=1)
    found = precise_recall[atoms, precise] >= 0
    return {
        "coverage": float((phi[1][atoms, best] >= COVERED).mean()),
        "recall_at_p80_mean": float(np.where(found, recall[1][atoms, precise], 0.0).mean()),
    }


def _agreement(fires_nk: Floats, on_nf: Floats) -> tuple[Floats, Floats, Floats]:
    """φ, precision and recall [F, K] of each latent as a detector of each atom."""
    n = len(fires_nk)
    both = (on_nf.T @ fires_nk).astype(np.float64)
    p, f = on_nf.sum(0, dtype=np.float64)[:, None], fires_nk.sum(0, dtype=np.float64)
    scale = np.sqrt(f * (n - f)) * np.sqrt(p * (n - p))
    phi = np.divide(n * both - f * p, scale, out=np.zeros_like(both), where=scale > 0)
    return phi, both / np.maximum(f, 1), both / np.maximum(p, 1)


def _monosemanticity(z_nk: Floats, on_nf: Floats, fit: slice, test: slice) -> Floats:
    """M [K]: the chance-corrected fraction of a latent's mass on its one atom; 0 if silent."""
    fractions = []
    for part in (fit, test):
        mass_k = z_nk[part].sum(0, dtype=np.float64)
        base_f = on_nf[part].mean(0, dtype=np.float64)[:, None]
        on_atom = (on_nf[part].T @ z_nk[part]) / np.where(mass_k > 0, mass_k, np.inf)
        fractions.append(np.where(mass_k > 0, (on_atom - base_f) / (1 - base_f), 0.0))
    best = fractions[0].argmax(axis=0)
    m_k: Floats = np.maximum(fractions[1][best, np.arange(z_nk.shape[1])], 0.0)
    return m_k


def _auc(z_nk: Floats, on_nf: Floats, fit: slice, test: slice) -> float:
    """Mean over atoms of the AUC of the one latent that tells the atom best."""
    chosen, scored = (_aucs(z_nk[part], on_nf[part]) for part in (fit, test))
    best = np.abs(chosen - 0.5).argmax(axis=1)
    atoms = np.arange(len(best))
    sign = np.where(chosen[atoms, best] >= 0.5, 1, -1)
    return float(np.nanmean(0.5 + sign * (scored[atoms, best] - 0.5)))


def _aucs(z_nk: Floats, on_nf: Floats) -> Floats:
    """AUC [F, K] of each latent for each atom; ½ for an atom that is on in no row."""
    n = len(z_nk)
    rank_kn = np.empty((z_nk.shape[1], n))
    for rank_n, z_n in zip(rank_kn, np.ascontiguousarray(z_nk.T), strict=True):
        # z ≥ 0, so that zeros rank lowest; they share one rank
        fired = np.flatnonzero(z_n > 0)
        silent = n - len(fired)
        rank_n[:] = (silent + 1) / 2
        order = np.argsort(z_n[fired], kind="stable")
        rank_n[fired[order]] = np.arange(silent + 1.0, n + 1)
    positives = on_nf.sum(0, dtype=np.float64)[:, None]
    pairs = positives * (n - positives)
    wins = on_nf.T.astype(np.float64) @ rank_kn.T - positives * (positives + 1) / 2
    auc_fk: Floats = np.divide(wins, pairs, out=np.full_like(wins, 0.5), where=pairs > 0)
    return auc_fk
