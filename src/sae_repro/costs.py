"""Costs of trainings on the machine that did them: `.sae-repro/costs/<key>.json`.

It differs from run to run, so it stands beside the cell store, out of keys, artifacts and whatever
is compared. A training that is killed has left its time so far; the run that goes on from its
checkpoint adds to it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sae_repro.errors import StudyError
from sae_repro.files import read_object, write_json
from sae_repro.numerics.processor import processor_name
from sae_repro.params import Cell
from sae_repro.params.cell_labels import as_trained
from sae_repro.params.operations import step_operations, trained_parameters
from sae_repro.stage import STATE

EVERY = 5.0  # seconds of training between two notes on them


@dataclass(frozen=True)
class Cost:
    """Time of one training, its start, threshold and files included; of all parts together."""

    seconds: float
    """By the clock on the wall: with other work beside it, that work's too."""
    cpu_seconds: float
    """Of the processor, all threads of the training's process."""
    parts: int
    """Runs that it took: more than one where it was resumed."""
    device: str
    """Processor, or GPU, of the last part."""


def path_of(store: Path, key: str) -> Path:
    """The cost of the cell `key` of a store."""
    return store.parent / "costs" / f"{key}.json"


@contextmanager
def measuring(path: Path, device: str, *, resumes: bool) -> Iterator[Callable[[], None]]:
    """Write the cost of the block to `path`; the block calls what it is given now and then.

    `device` is that of the training, `resumes` says whether it goes on from a checkpoint: then the
    time that `path` holds already is added.
    """
    before = (cost_at(path) if resumes else None) or Cost(0.0, 0.0, 0, "")
    start, cpu = time.monotonic(), time.process_time()
    written = start
    name = _device_name(device)

    def note() -> None:
        nonlocal written
        written = time.monotonic()
        cost = Cost(
            seconds=round(before.seconds + written - start, 3),
            cpu_seconds=round(before.cpu_seconds + time.process_time() - cpu, 3),
            parts=before.parts + 1,
            device=name,
        )
        write_json(path, asdict(cost))

    def tick() -> None:
        if time.monotonic() - written >= EVERY:
            note()

    try:
        yield tick
    finally:
        note()


def _device_name(device: str) -> str:
    if not device.startswith("cuda"):
        return processor_name()
    import torch

    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else device


def cost_at(path: Path) -> Cost | None:
    """The cost in a file; None where there is none that can be read."""
    try:
        return Cost(**read_object(path))
    except (StudyError, TypeError):
        return None


@dataclass(frozen=True)
class Training:
    """A trained SAE, its size, and what it took, where that is known."""

    name: str
    hook: str
    d_in: int
    d_sae: int
    parameters: int
    operations: int
    """Of a step: `params.operations`."""
    steps: int
    tokens: int
    cost: Cost | None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of the training over its seconds, steps that were repeated not counted."""
        return self.tokens / self.cost.seconds if self.cost and self.cost.seconds else None


def training_of(name: str, cell: Cell, summary: Mapping[str, Any], store: Path) -> Training | None:
    """The training that the train.json `summary` tells of; None where there was none to its end."""
    if cell.kind != "trained" or summary["status"] != "ok":
        return None
    cell, batch_size = as_trained(cell, summary["choices"]), summary["train"]["batch_size"]
    return Training(
        name=name,
        hook=summary["hook"],
        d_in=summary["d_in"],
        d_sae=summary["d_sae"],
        parameters=trained_parameters(cell, summary["d_in"], summary.get("d_out")),
        operations=step_operations(cell, summary["d_in"], batch_size, summary.get("d_out")),
        steps=summary["steps"],
        tokens=summary["steps"] * batch_size,
        cost=cost_at(path_of(store, summary["key"])),
    )


def trainings(saes: Mapping[str, Cell], study: Path) -> Iterator[Training]:
    """Those of the SAEs, by name, that are trained in the folder `study`."""
    store = study / STATE / "cells"
    for name, cell in saes.items():
        path = study / "artifacts" / "train" / name / "train.json"
        if path.is_file():
            found = training_of(name, cell, read_object(path), store)
            if found is not None:
                yield found
