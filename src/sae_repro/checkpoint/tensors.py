"""The tensors of a checkpoint against those of its model, by transformers' own report."""

from collections.abc import Iterator
from typing import Any

from sae_repro.checkpoint.wording import AGAIN, count, some


def tensor_problems(
    missing: set[str], unexpected: set[str], mismatched: set[tuple[Any, Any, Any]]
) -> Iterator[str]:
    """A line for each way in which the tensors of a checkpoint are not those of its model."""
    if wrapped := _wrapping(missing, unexpected):
        yield (
            f"{count(unexpected, 'tensor')} have `{wrapped}` in their names, which the model's "
            f"own lack: {some(unexpected)}; it was saved inside a wrapper: save the model within "
            "it with `save_pretrained`, or rename them without it"
        )
        return
    if missing:
        yield (
            f"{count(missing, 'tensor')} missing, for which random weights would stand in: "
            f"{some(missing)}; {AGAIN}, or fetch its files again"
        )
    if unexpected:
        yield (
            f"{count(unexpected, 'tensor')} that the model has no place for: "
            f"{some(unexpected)}; {AGAIN}, as the class that config.json names"
        )
    if mismatched:
        name, found, expected = min(mismatched)
        yield (
            f"{count(mismatched, 'tensor')} of another shape than config.json gives: {name} is "
            f"{list(found)}, not {list(expected)}; restore the config.json that belongs to the "
            "weights"
        )


def _wrapping(missing: set[str], unexpected: set[str]) -> str:
    """What a wrapper put into every unexpected name, where that explains all missing ones.

    Parts of names: `module.` of `module.model.norm.weight`, also in the middle of a name.
    """
    if not missing:
        return ""
    first = min(unexpected, default="").split(".")
    parts = len(first)
    for length in range(1, parts):
        for start in range(parts - length):
            part = ".".join(first[start : start + length]) + "."
            if all(part in name for name in unexpected) and missing <= {
                name.replace(part, "", 1) for name in unexpected
            }:
                return part
    return ""
