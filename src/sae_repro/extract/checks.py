"""Refusals: hooks that the model lacks, activations that no SAE can be trained on."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.checkpoint.configuration import shape_of
from sae_repro.errors import StudyError
from sae_repro.extract.statistics import Statistics
from sae_repro.params import Extract
from sae_repro.readers.agreement import hook_problems, hooks_of
from sae_repro.readers.hooked import hook_widths

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def check_fit(settings: Extract, subject: "TransformerBridge") -> None:
    """StudyError where the loaded model lacks a layer, a position or a hook of `settings`."""
    problems = list(hook_problems(settings.model_hooks, hooks_of(subject)))
    model: Any = subject.original_model
    positions = shape_of(model.config, "extract").positions
    if positions and settings.context > positions:
        problems.append(f"context = {settings.context}: the model has {positions} positions")
    if not problems:
        try:
            hook_widths(subject, settings.model_hooks)
        except StudyError as error:
            problems += str(error).split("\n")
    if problems:
        raise StudyError("\n".join(f"extract: {line}" for line in problems))


def check_finite(
    hook: str, values: npt.NDArray[Any], index: npt.NDArray[np.int32], settings: Extract
) -> None:
    """StudyError for a value that is infinite or NaN in the shards' precision."""
    bound = np.finfo(settings.dtype).max
    if values.max(initial=0) <= bound and values.min(initial=0) >= -bound:  # false where NaN
        return
    invalid = ~(np.abs(values) <= bound).all(axis=1)
    row = int(np.argmax(invalid))
    document, position, token = index[row].tolist()
    worst = np.abs(values[row]).max()
    raise StudyError(
        f"extract: {hook} is {worst:g} at document {document}, position {position} (token "
        f"{token}): outside {settings.dtype} (largest {bound:g}); "
        + (
            "set extract.dtype to float32"
            if settings.dtype == "float16" and np.isfinite(worst)
            else "the subject's own activations are broken"
        )
    )


def check_not_constant(hook: str, measured: Statistics) -> None:
    """StudyError for a hook at which all training activations are one vector."""
    if measured.constant:
        raise StudyError(
            f"extract: {hook} is {'0' if measured.rms == 0 else 'the same vector'} at every "
            "training token: an SAE has nothing to learn there; take it out of extract.hooks (or "
            "untrained_hooks, embeddings_hooks) and give the cells that read it another hook"
        )
