"""One cell's folder as a piece of work: its key, and the maker of its kind of cell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_repro.cellstore import CellStore
from sae_repro.files import digest
from sae_repro.params import Cell, Train
from sae_repro.readers.shards import ActivationStore


@dataclass(frozen=True)
class CellJob:
    """All that training one cell needs; pickles to a worker."""

    cell: Cell
    settings: Train
    hook: str
    seed: int
    key: str
    activations: Path
    store: Path
    checkpoint: Path
    metadata: Mapping[str, Any]

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Make the cell into the store, unless it is there by now."""
        with CellStore(self.store).making(self.key) as folder:
            if folder is not None:
                make_into(self, folder, progress)

    def make(self, folder: Path) -> None:
        """Make it into `folder`, without the store."""
        make_into(self, folder, lambda step: None)


def cell_key(
    cell: Cell,
    settings: Train,
    hook: str,
    seed: int,
    store: ActivationStore,
    metadata: Mapping[str, Any],
    code: str,
) -> str:
    """Hash of everything a cell's folder follows from; metrics.jsonl makes logging a part of it."""
    checksums = {
        split: store.activations(hook, split).checksum for split in ("train", "calibration")
    }
    statistics = {"rms": store.rms(hook), "mean": store.mean(hook).tolist()}
    return digest(
        {
            "cell": cell.identity(),
            "train": settings.model_dump(mode="json"),
            "hook": hook,
            "seed": seed,
            "activations": checksums | statistics,
            "metadata": dict(metadata),
            "code": code,
        }
    )


def make_into(job: CellJob, folder: Path, progress: Callable[[int], None]) -> None:
    """Write the cell's folder by the maker of its kind."""
    match job.cell.kind:
        case "imported":
            from sae_repro.train.makers.imported import make
        case "baseline":
            from sae_repro.train.makers.baseline import make
        case _:
            from sae_repro.train.makers.trained import make
    make(job, folder, progress)
