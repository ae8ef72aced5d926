"""Decoder directions of alive latents, read without torch, and each one's nearest in another SAE.

A latent's activation is never negative, so that only decoder rows that point the same way are the
same feature: cosines keep their sign. All products are fp64.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sae_repro.compare.collect import Result
from sae_repro.errors import StudyError
from sae_repro.files import remedy
from sae_repro.numerics.random import generator

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WEIGHTS = "sae_weights.safetensors"
ROWS = 1024
"""Of a product of cosines that are held at once."""


@dataclass(frozen=True)
class Atoms:
    """Unit decoder rows [K, D] of the latents `latent` [K] that fire on the held-out tokens."""

    latent: Ints
    rows_kd: Floats

    def __len__(self) -> int:
        return len(self.latent)

    @property
    def dimensions(self) -> int:
        """D."""
        return int(self.rows_kd.shape[1])


def atoms_of(sae: Result) -> Atoms:
    """Those of one SAE; a latent without a direction (a row of zeros) is none."""
    rows = _decoder(sae.trained / WEIGHTS)
    alive = sae.latents["log10_density"].notna().to_numpy()
    if len(alive) != len(rows):
        raise StudyError(
            f"{sae.trained / WEIGHTS}: {len(rows)} latents, {sae.evaluated / 'latents.parquet'}: "
            f"{len(alive)}; {remedy(sae.evaluated / 'latents.parquet')}"
        )
    norm = np.sqrt(np.square(rows).sum(axis=1))
    latent = np.flatnonzero(alive & (norm > 0))
    return Atoms(latent, np.ascontiguousarray(rows[latent] / norm[latent, None]))


def _decoder(path: Path) -> Floats:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            rows: Floats = tensors.get_tensor("W_dec").astype(np.float64)
    except (OSError, SafetensorError) as error:
        raise StudyError(f"{path}: can't be read ({error}); {remedy(path)}") from None
    return rows


@dataclass(frozen=True)
class Nearest:
    """Two SAEs' latents by the cosine of their decoder rows: positions in each one's `Atoms`."""

    parent_w: Ints
    """Of each latent of the wide SAE, the nearest of the narrow one; the lower of equals."""
    cosine_w: Floats
    """Their cosine."""
    best_n: Floats
    """Of each latent of the narrow SAE, the largest cosine with one of the wide."""


def nearest(narrow: Atoms, wide: Atoms) -> Nearest:
    """Both must have latents that fire, and one D."""
    parent, cosine = [], []
    best_n = np.full(len(narrow), -np.inf)
    for start in range(0, len(wide), ROWS):
        cosine_wn = wide.rows_kd[start : start + ROWS] @ narrow.rows_kd.T
        at = cosine_wn.argmax(axis=1)
        parent.append(at)
        cosine.append(cosine_wn[np.arange(len(at)), at])
        best_n = np.maximum(best_n, cosine_wn.max(axis=0))
    return Nearest(np.concatenate(parent), np.concatenate(cosine), best_n)


def random_atoms(n: int, dimensions: int, seed: int, *name: int | str) -> Atoms:
    """n directions, uniform on the sphere."""
    rows = generator(seed, "widths", *name, n, dimensions).standard_normal((n, dimensions))
    return Atoms(np.arange(n), rows / np.sqrt(np.square(rows).sum(axis=1, keepdims=True)))
