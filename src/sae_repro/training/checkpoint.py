"""Checkpoints: everything a step depends on, so that a killed cell ends as an undisturbed one.

One safetensors file, which is replaced at once: a kill leaves the old one or the new one. Its
header holds the journal, and a hash over journal and tensors.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from sae_repro.files import replacing
from sae_repro.training.journal import Journal


def save_checkpoint(path: Path, step: int, tensors: Mapping[str, Tensor], journal: Journal) -> None:
    """Replace the checkpoint `path` by the state before `step`."""
    from safetensors.torch import save_file

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    record = json.dumps({"step": step, **asdict(journal)})
    with replacing(path) as temporary:
        save_file(state, temporary, {"record": record, "sha256": _sha256(record, state)})


def load_checkpoint(path: Path) -> tuple[int, dict[str, Tensor], Journal] | None:
    """(step to do next, tensors, journal) of the last checkpoint, or None.

    None, with a line that says so, where it is damaged in any way.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError):
        header, state = {}, {}
    record = header.get("record", "")
    if header.get("sha256") != _sha256(record, state):
        print(f"train: {path}: damaged checkpoint; this SAE starts afresh", file=sys.stderr)
        drop_checkpoint(path)
        return None
    rows = json.loads(record)
    return rows.pop("step"), state, Journal(**rows)


def step_of_checkpoint(path: Path) -> int:
    """The step to do next by the checkpoint's header alone; 0 where there is none that is whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return int(json.loads((file.metadata() or {})["record"])["step"])
    except (OSError, ValueError, KeyError, SafetensorError):
        return 0


def drop_checkpoint(path: Path) -> None:
    """Delete the checkpoint, if there is one."""
    if path.is_dir():  # as earlier versions left it
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sha256(record: str, state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the record, and each tensor's name, type, shape and bytes."""
    sha256 = hashlib.sha256(record.encode())
    for name, tensor in sorted(state.items()):
        sha256.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha256.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()
