"""A map of the latents around one: their atoms in two dimensions.

Classical scaling of the distances between unit atoms, which is the same as their two first
principal components: linear, without a random start or a learning rate, so that two runs draw one
map, and distances on it are those of the atoms as far as two dimensions hold them. UMAP, which the
field draws, adds a dependency and keeps neighbourhoods alone.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.report.relations import BLOCK, unit

AROUND = 60
"""Latents on a map, besides its own."""
SIDE = 100
"""Coordinates are whole numbers from −100 to 100."""
Array = npt.NDArray[Any]
Map = list[list[int]]
"""[latent, x, y] of each point, its own first."""


def maps(atoms_kd: Array, alive_k: npt.NDArray[np.bool_]) -> list[Map]:
    """Per alive latent the map of the alive ones of the largest cosine; [] of others."""
    unit_kd = unit(atoms_kd)
    n = min(AROUND, int(alive_k.sum()) - 1)
    found: list[Map] = []
    for start in range(0, len(unit_kd), BLOCK):
        cosine_bk = unit_kd[start : start + BLOCK] @ unit_kd.T
        cosine_bk[:, ~alive_k] = -np.inf
        for latent, cosine_k in enumerate(cosine_bk, start):
            if not alive_k[latent] or n < 2:
                found.append([])
                continue
            cosine_k[latent] = np.inf
            near = np.argsort(-cosine_k, kind="stable")[: n + 1]
            points = scaled(unit_kd[near])
            found.append([[int(k), *xy] for k, xy in zip(near, points.tolist(), strict=True)])
    return found


def scaled(unit_nd: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Rows in two dimensions [n, 2], the farthest at ±100; the first has no negative coordinate."""
    centred_nd = unit_nd - unit_nd.mean(axis=0)
    value, vector = np.linalg.eigh(centred_nd @ centred_nd.T)
    xy: npt.NDArray[np.float64] = vector[:, -1:-3:-1] * np.sqrt(np.maximum(value[-1:-3:-1], 0.0))
    xy = np.where(xy[0] < 0, -xy, xy)
    largest = np.abs(xy).max()
    whole: npt.NDArray[np.int64] = np.rint(xy * (SIDE / (largest or 1.0))).astype(np.int64)
    return whole
