"""The values of the axes as tables show them, and small cells that serve as their examples.

Apart from `params.axes`, so that a change of wording retrains nothing: training reads rows of
facts, tables read these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ActivationLabel:
    """An activation in tables."""

    label: str
    example: Mapping[str, Any]
    """The other choices of a sensible small cell; tests and benchmarks try every activation so."""
    usual_penalty: str = "none"
    """The default penalty, which labels leave out."""
    usual_revival: str = "none"
    """The default revival, which labels leave out."""


ACTIVATION_LABELS = {
    "relu": ActivationLabel(
        "vanilla", example={"penalty": "l1", "lambda": 1e-2}, usual_penalty="l1"
    ),
    "topk": ActivationLabel("topk", example={"k": 3}, usual_revival="auxk"),
    "batchtopk": ActivationLabel("batchtopk", example={"k": 3}, usual_revival="auxk"),
    "jumprelu": ActivationLabel(
        "jumprelu",
        example={"penalty": "l0", "lambda": 1e-2, "jumprelu_bandwidth": 0.1},
        usual_penalty="l0",
    ),
    "gated": ActivationLabel(
        "gated", example={"penalty": "l1", "lambda": 1e-2}, usual_penalty="l1"
    ),
}

TRAINED_AUXILIARY = ("trained auxiliary", "l1_decoder_norm")
"""What stands behind the name of a gated SAE with `gated_auxiliary: trained`, which is trained by
another loss, and its default penalty: its decoder is free as a rule."""

REVIVAL_LABELS = {
    "none": "without revival",
    "resample": "+ resampling",
    "resample_published": "+ resampling as published",
    "auxk": "+ auxk",
}
"""Stands behind the architecture's name where the revival is not the usual one."""

FROZEN_LABELS = {"decoder": "decoder", "soft_decoder": "soft decoder", "encoder": "encoder"}
"""Negative controls of which a part stays random, by `frozen`."""

WEIGHTS_LABELS = {
    "": "",
    "untrained/": " on random weights",
    "embeddings/": " on embeddings alone",
}
"""Stands behind the architecture's name of a cell on a model that was not trained, or not all."""

BASIS_LABELS = {"neurons": "neurons", "pca": "PCA"}
"""Negative controls whose latents are given, not learnt."""
