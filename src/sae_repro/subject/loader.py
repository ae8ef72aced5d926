"""One loader for every subject: trained here, local, or from the hub."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sae_repro.errors import StudyError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def load_subject(folder: Path, *, device: str = "cpu") -> "TransformerBridge":
    """The language model in artifacts/subject, in fp32, weights neither folded nor centred."""
    if not (folder / "config.json").is_file():
        raise StudyError(f"{folder}: no language model there; `dvc repro subject` makes it")
    # a local folder needs no hub, and a failing look-up would hang for seconds
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformer_lens.model_bridge import TransformerBridge
    from transformers.utils import logging

    logging.disable_progress_bar()
    bridge = TransformerBridge.boot_transformers(str(folder), device=device, dtype=torch.float32)
    bridge.eval()
    for parameter in bridge.parameters():
        parameter.requires_grad_(False)
    return bridge
