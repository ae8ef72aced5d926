"""From the weights of a step to an SAE on raw activations."""

import math

import torch

from sae_repro.autoencoders import SAE, Weights, calibrated, finished
from sae_repro.params import Cell
from sae_repro.readers.shards import ActivationStore

CALIBRATION_CHUNK = 4096  # activations read at once


def scale_of(cell: Cell, store: ActivationStore, hook: str) -> float:
    """The factor by which activations are multiplied before training sees them.

    1 where all of them are 0, which no factor changes.
    """
    rms = store.rms(hook)
    expected_norm = cell.normalisation == "expected_norm" and rms > 0
    return math.sqrt(store.d_in(hook)) / rms if expected_norm else 1.0


def finished_sae(cell: Cell, weights: Weights, store: ActivationStore, hook: str) -> SAE:
    """`weights` of any step as an SAE on raw activations, its threshold calibrated if need be."""
    sae = finished(cell, weights, scale=scale_of(cell, store, hook))
    if cell.activation_row.threshold != "calibrated":
        return sae
    assert cell.k is not None
    shards = store.activations(hook, "calibration")
    with torch.no_grad():
        return calibrated(
            sae,
            (
                torch.from_numpy(rows.astype("float32")).to(weights.W_enc.device)
                for rows in shards.batches(CALIBRATION_CHUNK)
            ),
            cell.k,
            shards.rows,
        )
