"""One loader for every subject: trained here, local, or from the hub."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.errors import StudyError
from sae_repro.params import on_random_weights

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel


def load_subject(folder: Path, *, device: str = "cpu") -> "TransformerBridge":
    """The language model in artifacts/subject, in fp32, weights neither folded nor centred."""
    _check(folder)
    return _bridge(folder, device, None)


def load_untrained(folder: Path, weights_seed: int, *, device: str = "cpu") -> "TransformerBridge":
    """A model of the same configuration as that in `folder`, its weights freshly initialised.

    As its architecture initialises them, from a generator seeded with `weights_seed` (0 … 2⁶³ − 1).
    """
    _check(folder)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    # transformers initialises from torch's global generator: give it a seed, and put it back
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights_seed)
        # eager attention is what the bridge loads a trained model with
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation="eager"
        )
    return _bridge(folder, device, model.to(device))


def load_for(
    hook: str, folder: Path, manifest: Mapping[str, Any], *, device: str = "cpu"
) -> "TransformerBridge":
    """The model that a study reads `hook` from, by the `manifest` of its activations.

    It calls the hook by `model_hook(hook)`. StudyError where no random weights were read.
    """
    if not on_random_weights(hook):
        return load_subject(folder, device=device)
    if "untrained" not in manifest:
        raise StudyError(f"{hook}: this study has no extract.untrained_hooks; add the hook there")
    return load_untrained(folder, manifest["untrained"]["weights_seed"], device=device)


def _check(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise StudyError(f"{folder}: no language model there; `dvc repro subject` makes it")
    # a local folder needs no hub, and a failing look-up would hang for seconds
    os.environ["HF_HUB_OFFLINE"] = "1"


def _bridge(folder: Path, device: str, model: "PreTrainedModel | None") -> "TransformerBridge":
    """`model`, or the one saved in `folder`, for inference."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):  # booting draws from torch's global generator
        bridge = TransformerBridge.boot_transformers(
            str(folder), device=device, dtype=torch.float32, hf_model=model
        )
    bridge.eval()
    for parameter in bridge.parameters():
        parameter.requires_grad_(False)
    return bridge
