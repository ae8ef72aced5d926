"""The parts of a cell's folder that are the same for every kind of cell."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.autoencoders import SAE
from sae_repro.files import write_json, write_text
from sae_repro.params import model_hook, on_random_weights

if TYPE_CHECKING:
    from sae_repro.train.job import CellJob


def hook_metadata(hook: str) -> dict[str, Any]:
    """Where an SAE belongs, in SAELens's words: the model's own name of the hook."""
    random = {"model_weights": "random"} if on_random_weights(hook) else {}
    return {"hook_name": model_hook(hook), **random}


def write_untrained(
    folder: Path, sae: SAE, job: "CellJob", *, id: str | None, choices: Mapping[str, Any]
) -> None:
    """Write train.json and the empty journals of an SAE that no step of ours has changed."""
    for name in ("metrics.jsonl", "revival.jsonl"):
        write_text(folder / name, "")
    write_json(
        folder / "train.json",
        {
            "id": id,
            "key": job.key,
            "status": "ok",
            "hook": job.hook,
            "d_in": sae.d_in,
            "d_sae": sae.d_sae,
            "steps": 0,
            "tokens": 0,
            "seed": job.seed,
            "choices": dict(choices),
            "train": {},
        },
    )
