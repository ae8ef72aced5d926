"""Relations of latents: nearest atoms within a dictionary and in another, correlated activations.

Products of atoms are numpy's, whose kernels `numerics.kernels` fixes; sums over sparse activations
run in the order of the rows.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array

NEAREST = 3
BLOCK = 1024  # atoms compared at once with all others
Array = npt.NDArray[Any]
Related = list[list[tuple[int, float]]]
"""Per latent the others that are closest to it, with the cosine or correlation, largest first."""


def neighbours(atoms_kd: Array, alive_k: npt.NDArray[np.bool_]) -> Related:
    """The alive latents whose atoms have the largest cosine with that of each alive latent."""
    return _largest_cosines(atoms_kd, atoms_kd, alive_k, alive_k, NEAREST, itself=False)


def partners(
    atoms_kd: Array,
    alive_k: npt.NDArray[np.bool_],
    others_jd: Array,
    alive_j: npt.NDArray[np.bool_],
) -> Related:
    """The alive latent of another SAE whose atom is nearest to that of each alive latent."""
    return _largest_cosines(atoms_kd, others_jd, alive_k, alive_j, 1, itself=True)


def _largest_cosines(
    atoms_kd: Array,
    others_jd: Array,
    alive_k: npt.NDArray[np.bool_],
    alive_j: npt.NDArray[np.bool_],
    n: int,
    *,
    itself: bool,
) -> Related:
    unit_kd, unit_jd = unit(atoms_kd), unit(others_jd)
    found: Related = []
    for start in range(0, len(unit_kd), BLOCK):
        cosine_bj = unit_kd[start : start + BLOCK] @ unit_jd.T
        cosine_bj[:, ~alive_j] = -np.inf
        for k, cosine_j in enumerate(cosine_bj, start):
            if not itself:
                cosine_j[k] = -np.inf
            found.append(_largest(cosine_j, n) if alive_k[k] else [])
    return found


def unit(atoms_kd: Array) -> npt.NDArray[np.float64]:
    """Rows of length 1 in fp64; a row of zeros stays."""
    wide = atoms_kd.astype(np.float64)
    norm_k = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    return wide / np.where(norm_k > 0, norm_k, 1.0)


def _largest(values: Array, n: int) -> list[tuple[int, float]]:
    """The n largest finite values with their places; of equal ones, the first places."""
    candidates = np.argpartition(-values, min(n, len(values) - 1))[: n + 1]
    least = np.sort(values[candidates])[-min(n, len(candidates))]
    above = np.flatnonzero(values >= least)
    order = above[np.argsort(-values[above], kind="stable")][:n]
    return [(int(k), float(values[k])) for k in order if np.isfinite(values[k])]


def correlated(a_nk: csc_array) -> Related:
    """The latents whose activations over all tokens, zeros included, correlate most with each.

    Pearson's r; positive ones only, so that a latent that fires beside no other has none.
    """
    n = a_nk.shape[0]
    wide = a_nk.astype(np.float64)
    sum_k = np.asarray(wide.sum(axis=0)).ravel()
    square_k = np.asarray(wide.multiply(wide).sum(axis=0)).ravel()
    deviation_k = np.sqrt(np.maximum(square_k / n - (sum_k / n) ** 2, 0.0))
    # both fire on a token, or their covariance is negative: the sparse product has all that count
    products = csc_array(wide.T @ wide)
    products.sort_indices()
    found: Related = []
    for k in range(a_nk.shape[1]):
        column = slice(products.indptr[k], products.indptr[k + 1])
        other = products.indices[column]
        covariance = products.data[column] / n - sum_k[k] / n * sum_k[other] / n
        scale = deviation_k[k] * deviation_k[other]
        r = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
        keep = (other != k) & (r > 0)
        chosen = _largest(r[keep], NEAREST) if keep.any() else []
        found.append([(int(other[keep][place]), value) for place, value in chosen])
    return found
