"""Small reference SAEs, whose latents a larger dictionary should hold too.

A family of widths per study and hook, trained by the trainer of every cell on the training
activations. All evaluations share it through the cell store, also side by side: the first
that lacks one trains it, the others wait for the lock. Which of them there are is asked in the
stage's own process, which needs no torch.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sae_repro.cellstore import CellStore
from sae_repro.files import digest, read_json, write_json
from sae_repro.params import Cell, Train
from sae_repro.readers.shards import ActivationStore

if TYPE_CHECKING:
    from sae_repro.autoencoders import SAE

K = 4  # latents per token
BATCH = 1024
DEAD_TOKENS = 100_000
NEVER = 10**9  # steps: a family is trained in seconds, without checkpoints


@dataclass(frozen=True)
class Family:
    """The inputs that a family's weights follow from, beside hook and width."""

    store: Path
    """Of finished cells."""
    activations: Path
    seed: int
    code: str
    """Hash of the code that trains a reference."""
    device: str
    threads: int

    def place(self, hook: str, width: int) -> Path:
        """The folder in the store of the reference of `width` latents on `hook`."""
        store = ActivationStore(self.activations)
        return self.store / _key(self, *_planned(self, store, hook, width), store, hook)


def recipe(width: int, d_in: int) -> Cell:
    """TopK with k = 4 and auxk: the same L0 at every hook and width without a λ to search for.

    auxk keeps the few latents alive.
    """
    return Cell(
        # a little more than K / D, so that rounding down can't lose a latent
        expansion=(width + 0.01) / d_in,
        activation="topk",
        k=min(K, width),
        revival="auxk",
        dead_tokens=DEAD_TOKENS,
        adam_eps=6.25e-10,
    )


def references(family: Family, hook: str, widths: Sequence[int]) -> "dict[int, SAE | None]":
    """The SAE of each width on `hook`; None where its training failed."""
    return {width: _reference(family, hook, width) for width in widths}


def _planned(family: Family, store: ActivationStore, hook: str, width: int) -> tuple[Cell, Train]:
    """The reference as a cell, and how it is trained."""
    shards = store.activations(hook, "train")
    rows = shards.first_round().rows
    settings = Train(
        batch_size=min(BATCH, rows),
        epochs=1,
        checkpoint_every=NEVER,
        threads=family.threads,
        device=family.device,
    )
    cell = recipe(width, store.d_in(hook))
    return cell if rows == shards.rows else cell.model_copy(update={"tokens": rows}), settings


def _key(family: Family, cell: Cell, settings: Train, store: ActivationStore, hook: str) -> str:
    shards = store.activations(hook, "train")
    return digest(
        {
            "reference": cell.identity(),
            "train": settings.model_dump(mode="json"),
            "hook": hook,
            "seed": family.seed,
            "activations": [shards.checksum, store.rms(hook), store.median_norm(hook)],
            "code": family.code,
        }
    )


def _reference(family: Family, hook: str, width: int) -> "SAE | None":
    from sae_repro.autoencoders import load

    store, cells = ActivationStore(family.activations), CellStore(family.store)
    cell, settings = _planned(family, store, hook, width)
    key = _key(family, cell, settings, store, hook)
    with cells.making(key) as folder:
        if folder is not None:
            _train_into(folder, cell, settings, store, hook, family.seed)
    folder = cells.folder / key
    if read_json(folder / "reference.json")["status"] != "ok":
        return None
    return load(folder, device=family.device)


def _train_into(
    folder: Path, cell: Cell, settings: Train, store: ActivationStore, hook: str, seed: int
) -> None:
    from sae_repro.autoencoders import save
    from sae_repro.numerics.determinism import prepare
    from sae_repro.training import Diverged, Trainer

    prepare(device=settings.device, threads=settings.threads)  # it may be a worker's first job
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(cell, settings, store, hook, seed=seed, checkpoint=Path(scratch) / "none")
        try:
            trained = trainer.run()
        except Diverged as failure:
            write_json(folder / "reference.json", {"status": "failed", "reason": str(failure)})
            return
    save(trained.sae, folder)
    final = trained.journal.metrics[-1]
    write_json(folder / "reference.json", {"status": "ok", "hook": hook, "final": final})
