"""Sparse autoencoders: four independent choices, activation × penalty × prefixes × revival.

Orientation: W_enc [D, K], b_enc [K], W_dec [K, D] (row k is the atom d_k), b_dec [D];
x̂ = z·W_dec + b_dec. Nothing here trains; `sae_repro.training` does. Facts about the values of the
four axes stand in `sae_repro.params.axes`; `activations`, `penalties`, `prefixes` and `losses` hold
their formulas under the same names.

    from sae_repro.autoencoders import load
    sae = load("artifacts/train/topk-x8-k16/seed-0")
    z_nk = sae.encode(x_nd)
    sae.decode(z_nk)
"""

from sae_repro.autoencoders.activations import (
    batch_top_k,
    batchtopk_threshold,
    decoder_norm,
    top_k,
    training_code,
)
from sae_repro.autoencoders.crosscoding import Crosscoder, crosscoder_of, levelled
from sae_repro.autoencoders.losses import Losses, training_losses
from sae_repro.autoencoders.prefixes import prefix_lengths
from sae_repro.autoencoders.saved import SAE, calibrated, finished, load, save
from sae_repro.autoencoders.weights import LATENT_AXIS, Weights, geometric_median, initial_weights

__all__ = [
    "LATENT_AXIS",
    "SAE",
    "Crosscoder",
    "Losses",
    "Weights",
    "batch_top_k",
    "batchtopk_threshold",
    "calibrated",
    "crosscoder_of",
    "decoder_norm",
    "finished",
    "geometric_median",
    "initial_weights",
    "levelled",
    "load",
    "prefix_lengths",
    "save",
    "top_k",
    "training_code",
    "training_losses",
]
