"""Maker of baselines, which a trained SAE must beat: neurons, principal directions, untrained.

A given direction has two ends, and each end is a latent: K = 2 D, positive ends first. The two
bases reconstruct without loss; they are compared by how much their latents mean.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders import SAE, Weights, save
from sae_repro.numerics.determinism import prepare
from sae_repro.params import Cell, Train
from sae_repro.readers.joined import JoinedStore
from sae_repro.readers.shards import ActivationStore
from sae_repro.train.folder import hook_metadata, write_records
from sae_repro.training import Trainer, cell_id

if TYPE_CHECKING:
    from sae_repro.train.job import CellJob

CHUNK = 16_384  # activations read at once


def neurons(mean_d: Tensor) -> SAE:
    """The model's own basis: each dimension above, and below, its training mean [D], fp64."""
    return _two_ended(mean_d, torch.eye(len(mean_d), dtype=torch.float64))


def principal(batches: Iterable[Tensor], mean_d: Tensor) -> SAE:
    """Principal directions of the activations in `batches` [n, D], from the largest on.

    `mean_d` [D] fp64 is their mean. Memory is a batch and D².
    """
    scatter_dd, n = torch.zeros(len(mean_d), len(mean_d), dtype=torch.float64), 0
    for x_nd in batches:
        # centred before they are squared: a mean far from 0 would cost the digits of the variance
        centred_nd = x_nd.double() - mean_d
        scatter_dd += centred_nd.T @ centred_nd
        n += len(x_nd)
    _, vectors_dj = torch.linalg.eigh(scatter_dd / n)
    axes_jd = vectors_dj.flip(1).T
    # an eigenvector's sign is the library's whim: its largest entry shall be positive
    largest_j1 = axes_jd.abs().argmax(dim=1, keepdim=True)
    return _two_ended(mean_d, axes_jd * axes_jd.gather(1, largest_j1).sign())


def _two_ended(mean_d: Tensor, axes_jd: Tensor) -> SAE:
    """ReLU latents along V = `axes_jd`ᵀ and against it: W_enc = [V, −V], W_dec its transpose."""
    w_dec = torch.cat([axes_jd, -axes_jd]).float()
    weights = Weights(
        W_enc=w_dec.T.clone(memory_format=torch.contiguous_format),
        b_enc=torch.zeros(len(w_dec)),
        W_dec=w_dec,
        b_dec=mean_d.float(),
    )
    return SAE(architecture="standard", weights=weights)


def untrained(cell: Cell, settings: Train, store: ActivationStore, hook: str, *, seed: int) -> SAE:
    """The cell's SAE as training would find it at the start, BatchTopK's threshold calibrated."""
    return Trainer(cell, settings, store, hook, seed=seed, checkpoint=Path()).sae()


def make(job: "CellJob", folder: Path, progress: Callable[[int], None]) -> None:
    """Write the folder of a cell that is not trained."""
    prepare(device=job.settings.device, threads=job.settings.threads)
    cell, hook, store = job.cell, job.hook, JoinedStore(job.activations)
    mean_d = torch.from_numpy(np.array(store.mean(hook)))
    if cell.baseline == "neurons":
        sae = neurons(mean_d)
    elif cell.baseline == "pca":
        shards = store.activations(hook, "train").first_round()
        sae = principal((torch.from_numpy(np.array(x)) for x in shards.batches(CHUNK)), mean_d)
    else:
        sae = untrained(cell, job.settings, store, hook, seed=job.seed)
    metadata = {
        "training_architecture": f"{cell.baseline}-{cell.activation}",
        **(sae.metadata or {}),
        **hook_metadata(hook, cell.target_hook),
    }
    save(replace(sae, metadata={**metadata, **job.metadata}), folder)
    choices = {"activation": cell.activation, **cell.identity()}
    write_records(folder, job, id=cell_id(cell), d_in=sae.d_in, d_sae=sae.d_sae, choices=choices)
