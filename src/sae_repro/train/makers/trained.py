"""Maker of cells that are trained here: an SAE, or the record of a failure."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.autoencoders import SAE, save
from sae_repro.numerics.determinism import prepare
from sae_repro.parallel import ALONE, Ranks, trainer_of
from sae_repro.params import Cell
from sae_repro.train.folder import hook_metadata, write_records
from sae_repro.train.paused import Paused
from sae_repro.train.unreached import unreached
from sae_repro.training import Diverged, cell_id, drop_checkpoint

if TYPE_CHECKING:
    from sae_repro.train.job import CellJob


def make(
    job: "CellJob", folder: Path | None, progress: Callable[[int], None], *, ranks: Ranks = ALONE
) -> None:
    """Train one cell and write its folder: SAE, metrics.jsonl, revival.jsonl, train.json.

    A cell that diverges is a result too: its folder says so and holds no SAE. Of several `ranks`
    that train it together, all but the first have no folder. Paused, with a checkpoint, where the
    job is not to be done to its end.
    """
    prepare(device=job.settings.device, threads=job.settings.threads)
    store = job.store_of_rows
    trainer = trainer_of(
        job.cell,
        job.settings,
        store,
        job.hook,
        seed=job.seed,
        checkpoint=job.checkpoint,
        ranks=ranks,
    )
    outcome: dict[str, Any]
    try:
        if job.until is not None:
            trainer.advance(job.until, progress)
            raise Paused
        trained = trainer.run(progress)
    except Diverged as failure:
        journal = failure.journal
        outcome = {"status": "failed", "reason": str(failure)}
    else:
        journal = trained.journal
        if folder is not None:
            save(with_metadata(trained.sae, job), folder)
        outcome = {"final": journal.metrics[-1], **trained.thresholds}
    if folder is None:
        return
    write_records(
        folder,
        job,
        id=cell_id(job.cell),
        d_in=trainer.weights.d_in,
        d_sae=trainer.weights.d_sae,
        d_out=trainer.weights.d_out if job.cell.target_hook is not None else None,
        choices={
            **job.cell.model_dump(mode="json", by_alias=True),
            "lr": job.cell.peak_lr(trainer.weights.d_in),  # as it was, whatever the default says
        },
        steps=trainer.batches.steps,
        metrics=journal.metrics,
        revivals=journal.revivals,
        unreached=[
            *unreached(job.cell, job.settings, trainer.batches.steps, trainer.weights.d_sae)
        ],
        outcome=outcome,
    )
    drop_checkpoint(job.checkpoint)


def with_metadata(sae: SAE, job: "CellJob") -> SAE:
    """The SAE with the metadata of its training, for cfg.json."""
    metadata = {
        **(sae.metadata or {}),
        **hook_metadata(job.hook, job.cell.target_hook),
        "training_architecture": _architecture(job.cell),
        **job.metadata,
    }
    return replace(sae, metadata=metadata)


def _architecture(cell: Cell) -> str:
    parts: list[str] = [cell.activation]
    if cell.frozen is not None:
        parts.append(f"frozen-{cell.frozen.replace('_', '-')}")
    if cell.penalty != "none":
        parts.append(cell.penalty)
    if cell.prefixes != "none":
        parts.append(f"matryoshka-{cell.prefixes}")
    return "-".join(parts)
