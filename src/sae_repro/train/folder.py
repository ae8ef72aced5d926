"""What stands in the folder of a cell, however its SAE came about."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_repro.autoencoders import SAE
from sae_repro.files import write_json, write_text
from sae_repro.params import model_hook, on_random_weights


def hook_metadata(hook: str) -> dict[str, Any]:
    """Where an SAE belongs, in SAELens's words: the model's own name of the hook."""
    random = {"model_weights": "random"} if on_random_weights(hook) else {}
    return {"hook_name": model_hook(hook), **random}


def write_untrained(
    folder: Path,
    sae: SAE,
    *,
    id: str | None,
    key: str,
    hook: str,
    seed: int,
    choices: Mapping[str, Any],
) -> None:
    """Write train.json and the empty journals of an SAE that no step of ours has changed."""
    for name in ("metrics.jsonl", "revival.jsonl"):
        write_text(folder / name, "")
    write_json(
        folder / "train.json",
        {
            "id": id,
            "key": key,
            "status": "ok",
            "hook": hook,
            "d_in": sae.d_in,
            "d_sae": sae.d_sae,
            "steps": 0,
            "tokens": 0,
            "seed": seed,
            "choices": dict(choices),
            "train": {},
        },
    )
