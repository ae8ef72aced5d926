"""Kinds of a wide SAE's latents against a narrow one's: new, split, copy; and hedging.

With c(w) the largest cosine of the decoder row of a wide latent w with one of the narrow SAE's, its
parent, and a threshold t:

- new: c(w) < t;
- copy: c(w) ≥ t, and w is its parent's only child so near;
- split: c(w) ≥ t, and its parent has other children so near.

P. Leask et al. 2025 (arXiv:2502.04878) divide a larger SAE's latents into novel and reconstruction
latents by this cosine; reconstruction latents are copies and splits here. t = 0.7, as of latents
that seeds share; tables have other thresholds beside it.

Hedging: D. Chanin et al. 2025 (arXiv:2505.11756) show that an SAE too narrow for correlated
features mixes into a latent the direction of a feature that it has no latent for, and that a wider
SAE, which has one, lets go of it. So of a narrow latent n and its copy w, and the new latents u,

    hedging = D · mean over (n, w), u of cos²(d_n, d_u) − cos²(d_w, d_u)
    leaning = √D · mean over (n, w), u of cos(d_n, d_u) − cos(d_w, d_u)

are above 0 where the narrow SAE's latents hold more of the new ones' directions than their copies
do, leaning where they hold them with a positive sign. 1 / D is the mean cos² of random directions.
"""

import numpy as np
import numpy.typing as npt

from sae_repro.compare.widths.directions import Atoms, Floats, Ints, Nearest

NEAR = 0.7
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
KINDS = ("new", "split", "copy")
Kinds = npt.NDArray[np.int8]
"""Of each wide latent, its number in `KINDS`."""


def children(found: Nearest, threshold: float = NEAR) -> Ints:
    """Of each narrow latent, the wide latents that have it as their parent, so near."""
    near = found.parent_w[found.cosine_w >= threshold]
    counts: Ints = np.bincount(near, minlength=len(found.best_n))
    return counts


def kinds(found: Nearest, threshold: float = NEAR) -> Kinds:
    """The kind of each wide latent."""
    siblings = children(found, threshold)[found.parent_w]
    is_near = found.cosine_w >= threshold
    chosen: Kinds = np.where(is_near, np.where(siblings > 1, 1, 2), 0).astype(np.int8)
    return chosen


def shares(found: Nearest, threshold: float = NEAR) -> dict[str, float]:
    """Fraction of the wide latents of each kind; of narrow ones that split, and without a child."""
    kind, counts = kinds(found, threshold), children(found, threshold)
    return {
        **{name: float((kind == number).mean()) for number, name in enumerate(KINDS)},
        "narrow_split": float((counts > 1).mean()),
        "narrow_lost": float((counts == 0).mean()),
    }


def hedging(narrow: Atoms, wide: Atoms, found: Nearest) -> dict[str, float]:
    """hedging and leaning, as above; NaN without copies or without new latents."""
    kind = kinds(found)
    copies, new = np.flatnonzero(kind == 2), np.flatnonzero(kind == 0)
    if not len(copies) or not len(new):
        return {"hedging": np.nan, "leaning": np.nan}
    n_cd, w_cd = narrow.rows_kd[found.parent_w[copies]], wide.rows_kd[copies]
    u_ud = wide.rows_kd[new]
    second_dd, mean_d = u_ud.T @ u_ud / len(new), u_ud.mean(axis=0)

    def squares(rows_cd: Floats) -> float:
        return float(((rows_cd @ second_dd) * rows_cd).sum() / len(rows_cd))

    d = narrow.dimensions
    return {
        "hedging": d * (squares(n_cd) - squares(w_cd)),
        "leaning": float(np.sqrt(d) * ((n_cd - w_cd) @ mean_d).mean()),
    }
