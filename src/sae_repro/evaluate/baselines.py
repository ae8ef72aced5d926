"""What an SAE must beat: the model's own basis, principal directions, an untrained SAE.

Each is a function from activations x [n, D] to a [n, K] ≥ 0.
A direction has two ends, and each end is a latent: K = 2 × directions, positive ends first.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.autoencoders import SAE, calibrated, finished, initial_weights
from sae_repro.params import Cell
from sae_repro.random import generator

Latents = Callable[[Tensor], Tensor]


def neurons(mean_d: npt.NDArray[Any]) -> Latents:
    """The model's own basis: each dimension above, and below, its training mean; K = 2D."""
    return _directions(mean_d, np.eye(len(mean_d)))


def principal(batches: Iterable[Tensor], d_in: int) -> Latents:
    """Principal directions of the activations in `batches` [n, D], from the largest on; K = 2D.

    Give it training activations, or the fit half: never what is scored.
    """
    total_d, square_dd, n = np.zeros(d_in), np.zeros((d_in, d_in)), 0
    for x_nd in batches:
        x = x_nd.double().cpu().numpy()
        total_d += x.sum(axis=0)
        square_dd += x.T @ x
        n += len(x)
    mean_d = total_d / n
    _, vectors_dj = np.linalg.eigh(square_dd / n - np.outer(mean_d, mean_d))
    axes_jd = vectors_dj[:, ::-1].T
    # an eigenvector's sign is the library's whim: its largest entry shall be positive
    largest = np.abs(axes_jd).argmax(axis=1)
    axes_jd = axes_jd * np.sign(axes_jd[np.arange(d_in), largest])[:, None]
    return _directions(mean_d, axes_jd)


def _directions(mean_d: npt.NDArray[Any], axes_jd: npt.NDArray[Any]) -> Latents:
    mean, axes = (torch.from_numpy(np.array(part)).float() for part in (mean_d, axes_jd))

    def latents(x_nd: Tensor) -> Tensor:
        along_nj = (x_nd - mean.to(x_nd.device)) @ axes.T.to(x_nd.device)
        return torch.cat([along_nj, -along_nj], dim=1).relu_()

    return latents


def untrained(cell: Cell, x_nd: Tensor, seed: int, *, epsilon: float = 0.0) -> SAE:
    """The cell's SAE as training would find it at the start, from activations x [N, D] to start on.

    `x_nd`: training activations, or the fit half. They set b_dec, and the threshold where a code is
    sparse by BatchTopK.
    """
    rng = generator(seed, "untrained")
    weights = initial_weights(cell, x_nd.shape[1], x_nd, rng, epsilon=epsilon)
    sae = finished(cell, weights)
    if cell.activation == "batchtopk":
        assert cell.k is not None
        sae = calibrated(sae, [x_nd], cell.k, len(x_nd))
    return sae
