"""Checkpoints: everything a step depends on, so that a killed cell ends as an undisturbed one."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from sae_repro.files import read_json, replacing_folder, write_json
from sae_repro.training.journal import Journal


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], journal: Journal
) -> None:
    """Replace the checkpoint in `folder` by the state before `step`."""
    from safetensors.torch import save_file

    with replacing_folder(folder) as temporary:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            temporary / "state.safetensors",
        )
        write_json(temporary / "journal.json", {"step": step, **asdict(journal)})


def load_checkpoint(folder: Path) -> tuple[int, dict[str, Tensor], Journal] | None:
    """(step to do next, tensors, journal) of the last checkpoint, or None."""
    from safetensors.torch import load_file

    if not (folder / "journal.json").is_file():
        return None
    rows = read_json(folder / "journal.json")
    step = rows.pop("step")
    return step, load_file(folder / "state.safetensors"), Journal(**rows)
