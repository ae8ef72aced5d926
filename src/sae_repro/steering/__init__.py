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
    drawn,
    output_score,
    predictions,
    promoted_tokens,
)
from sae_repro.steering.interventions import Intervention, behind_first, edit_of, edited, steered
from sae_repro.steering.strength import strength_at

__all__ = [
    "Intervention",
    "behind_first",
    "continued",
    "divergence",
    "drawn",
    "edit_of",
    "edited",
    "output_score",
    "predictions",
    "promoted_tokens",
    "steered",
    "strength_at",
]
