"""Steering: whether a latent that means a concept makes the model write it, at equal KL."""

from pathlib import Path
from typing import TYPE_CHECKING

from sae_repro.evaluate.summary import Summary
from sae_repro.params import model_hook, on_random_weights
from sae_repro.params.joint import is_joint

if TYPE_CHECKING:  # the stage asks `why_not` in a process of its own, which needs no torch
    from sae_repro.evaluate.first_pass import FirstPass


def measure(first_pass: "FirstPass") -> Summary:
    """steering.parquet: a row per concept and condition, or one that says why there is none."""
    from sae_repro.evaluate.metrics.steering.conditions import measured_rows, unmeasured
    from sae_repro.evaluate.metrics.steering.scene import Scene, not_enough
    from sae_repro.evaluate.metrics.steering.table import MEANS, summary

    reason = why_not(first_pass.study.corpus, first_pass.hook, first_pass.target) or not_enough(
        first_pass
    )
    if reason:
        first_pass.write(unmeasured(reason), "steering")
        nothing = {"steering_concepts": 0, "steering_next_concepts": 0}
        return Summary(dict.fromkeys(MEANS), nothing, {})
    frame, tallies = measured_rows(first_pass, Scene.of(first_pass))
    first_pass.write(frame, "steering")
    return summary(frame, tallies, first_pass.study.seed)


def why_not(corpus: Path, hook: str, target: str | None) -> str | None:
    """Why latents of `hook` can't be measured on the text of `corpus`; None where they can.

    `target` is a transcoder's target hook.
    """
    if is_joint(hook):
        return "a crosscoder's atoms are directions at several hooks"
    if target is not None:
        return "a transcoder's atoms are directions at another hook than the one it reads"
    if not (corpus / "concepts.json").is_file():
        return "no grammar labels the text that is written: corpus.source.kind is not stories"
    if on_random_weights(hook):
        return f"{hook}: a model with random weights writes no text"
    if "hook_resid" not in model_hook(hook):
        return f"{hook} is no residual stream"
    return None
