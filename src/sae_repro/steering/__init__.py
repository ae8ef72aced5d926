"""A language model steered by latents of an SAE, and how far that moves its predictions.

from pathlib import Path

from sae_repro.autoencoders import load
from sae_repro.readers.subject import load_subject
from sae_repro.steering import Intervention, steered

subject, sae = load_subject(Path("artifacts/subject")), load("artifacts/train/topk-x8-k16/seed-0")
with steered(subject, sae, "blocks.1.hook_resid_post", [Intervention(423, "clamp", 8.0)]):
    logits = subject(tokens)
"""

from sae_repro.steering.continuation import (
    continued,
    divergence,
    output_score,
    predictions,
    promoted_tokens,
)
from sae_repro.steering.interventions import Intervention, edit_of, edited, steered

__all__ = [
    "Intervention",
    "continued",
    "divergence",
    "edit_of",
    "edited",
    "output_score",
    "predictions",
    "promoted_tokens",
    "steered",
]
