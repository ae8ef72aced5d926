"""From the weights of a step to an SAE on raw activations."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders import SAE, Weights, calibrated, finished
from sae_repro.autoencoders.crosscoding import of_hooks
from sae_repro.params import Cell
from sae_repro.params.joint import hooks_in, is_joint
from sae_repro.readers.joined import widths_of
from sae_repro.readers.shards import ActivationStore
from sae_repro.training.journal import Journal

CALIBRATION_CHUNK = 4096  # activations read at once


@dataclass(frozen=True)
class Trained:
    """A finished cell: the SAE on raw activations, and the journal of its training."""

    sae: SAE
    journal: Journal
    thresholds: dict[str, float | None]
    """BatchTopK: τ as calibrated, and its running mean over training, in raw units; None where no
    latent ever fired."""


def usual_norm(store: ActivationStore, hook: str) -> float:
    """The norm of a usual training activation: the median of ‖x‖, which a few massive ones (some
    models give single tokens 100 times the others' norm) leave as it is.

    √E‖x‖² where more than half of the activations are 0, and 0 where all of them are.
    """
    return store.median_norm(hook) or store.rms(hook)


def scale_of(cell: Cell, store: ActivationStore, hook: str) -> float:
    """The factor by which activations are multiplied before training sees them.

    With `normalisation: expected_norm` √D / `usual_norm`, where others take √(D / E‖x‖²)
    (Anthropic, "Update on how we train SAEs", April 2024) or √D / E‖x‖ (SAELens). 1 where all
    activations are 0, which no factor changes.
    """
    norm = usual_norm(store, hook) if cell.normalisation == "expected_norm" else 0.0
    return math.sqrt(store.d_in(hook)) / norm if norm else 1.0


def scaled_norm(cell: Cell, store: ActivationStore, hook: str) -> float:
    """The norm of a usual activation as training sees it."""
    return usual_norm(store, hook) * scale_of(cell, store, hook)


def factor_of(
    cell: Cell, store: ActivationStore, hook: str, device: torch.device
) -> float | Tensor:
    """By what training multiplies activations: `scale_of`, or of a crosscoder [ΣD_h], fp32."""
    scale_d = column_scales(cell, store, hook)
    return scale_of(cell, store, hook) if scale_d is None else scale_d.float().to(device)


def column_scales(cell: Cell, store: ActivationStore, hook: str) -> Tensor | None:
    """Of a crosscoder: the factor of each entry [ΣD_h], `scale_of` its own hook; None of others.

    Together its hooks are then as `scale_of` their name says: √Σ_h (s_h·‖x_h‖)² is √ΣD_h.
    """
    if not is_joint(hook):
        return None
    scales = [scale_of(cell, store, one) for one in hooks_in(hook)]
    return torch.tensor(scales, dtype=torch.float64).repeat_interleave(
        torch.tensor(widths_of(store, hook))
    )


def centre_of(store: ActivationStore, hook: str) -> Tensor:
    """What is subtracted from a transcoder's inputs in training, [D] fp64: their mean.

    An SAE's encoder sees x − b_dec; a transcoder's b_dec is no such centre, and with inputs far
    from 0 all directions would learn the mean first.
    """
    return torch.from_numpy(np.array(store.mean(hook)))


def finished_sae(cell: Cell, weights: Weights, store: ActivationStore, hook: str) -> SAE:
    """`weights` of any step as an SAE on raw activations, its threshold calibrated if need be."""
    scale, target = scale_of(cell, store, hook), cell.target_hook
    scale_d = column_scales(cell, store, hook)
    if scale_d is not None:
        sae = finished(cell, weights, scale=scale, scale_d=scale_d.to(weights.W_enc.device))
        sae = of_hooks(sae, hooks_in(hook), widths_of(store, hook), scale_d / scale)
    elif target is None:
        sae = finished(cell, weights, scale=scale)
    else:
        target_scale, centre_d = scale_of(cell, store, target), centre_of(store, hook)
        sae = finished(
            cell, weights, scale=scale, target_scale=target_scale,
            centre_d=centre_d.to(weights.W_enc.device),
        )  # fmt: skip
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
