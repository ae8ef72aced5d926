"""A cell that is trained here, or recorded as failed."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.autoencoders import SAE, save
from sae_repro.files import canonical_json, write_json, write_text
from sae_repro.numerics.determinism import prepare
from sae_repro.params import Cell
from sae_repro.readers.activations import ActivationStore
from sae_repro.train.folder import hook_metadata
from sae_repro.training import Diverged, Trainer, cell_id

if TYPE_CHECKING:
    from sae_repro.train.job import CellJob


def make(job: "CellJob", folder: Path, progress: Callable[[int], None]) -> None:
    """Train one cell and write its folder: SAE, metrics.jsonl, revival.jsonl, train.json.

    A cell that diverges is a result too: its folder says so and holds no SAE.
    """
    prepare(device=job.settings.device, threads=job.settings.threads)
    store = ActivationStore(job.activations)
    trainer = Trainer(
        job.cell, job.settings, store, job.hook, seed=job.seed, checkpoint=job.checkpoint
    )
    summary: dict[str, Any] = {
        "id": cell_id(job.cell),
        "key": job.key,
        "status": "ok",
        "hook": job.hook,
        "d_in": trainer.weights.d_in,
        "d_sae": trainer.weights.d_sae,
        "steps": trainer.batches.steps,
        "tokens": trainer.batches.steps * job.settings.batch_size,
        "seed": job.seed,
        "choices": job.cell.model_dump(mode="json", by_alias=True),
        "train": job.settings.model_dump(mode="json"),
    }
    try:
        trained = trainer.run(progress)
    except Diverged as failure:
        journal = failure.journal
        summary |= {"status": "failed", "reason": str(failure)}
    else:
        journal = trained.journal
        save(with_metadata(trained.sae, job), folder)
        summary |= {"final": journal.metrics[-1], **trained.thresholds}
    for name, rows in (("metrics", journal.metrics), ("revival", journal.revivals)):
        write_text(folder / f"{name}.jsonl", "".join(canonical_json(row) + "\n" for row in rows))
    write_json(folder / "train.json", summary)
    shutil.rmtree(job.checkpoint, ignore_errors=True)


def with_metadata(sae: SAE, job: "CellJob") -> SAE:
    """The SAE with what cfg.json says of its training."""
    metadata = {
        **hook_metadata(job.hook),
        "training_architecture": _architecture(job.cell),
        **job.metadata,
    }
    return replace(sae, metadata=metadata)


def _architecture(cell: Cell) -> str:
    parts: list[str] = [cell.activation]
    if cell.penalty != "none":
        parts.append(cell.penalty)
    if cell.prefixes != "none":
        parts.append(f"matryoshka-{cell.prefixes}")
    return "-".join(parts)
