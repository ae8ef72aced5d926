"""The whole grid from one stage: cells that nobody has trained yet are trained side by side."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_repro.cellstore import CellStore
from sae_repro.files import digest, write_json, write_text
from sae_repro.params import Cell, Train
from sae_repro.store import ActivationStore


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
        """Train the cell into the store, unless it is there by now."""
        with CellStore(self.store).making(self.key) as folder:
            if folder is not None:
                train_into(self, folder, progress)

    def make(self, folder: Path) -> None:
        """Train into `folder`, without the store."""
        train_into(self, folder, lambda step: None)


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
    return digest(
        {
            "cell": cell.identity(),
            "train": settings.model_dump(mode="json"),
            "hook": hook,
            "seed": seed,
            "activations": checksums,
            "metadata": dict(metadata),
            "code": code,
        }
    )


def train_into(job: CellJob, folder: Path, progress: Callable[[int], None]) -> None:
    """Train one cell and write its folder: SAE, metrics.jsonl, revival.jsonl, train.json.

    A cell that diverges is a result too: its folder says so and holds no SAE.
    """
    import shutil

    from sae_repro.autoencoders import save
    from sae_repro.compute import prepare
    from sae_repro.files import canonical_json
    from sae_repro.train.trainer import Trainer, cell_id
    from sae_repro.train.watch import Diverged

    prepare(device=job.settings.device, threads=job.settings.threads)
    store = ActivationStore(job.activations)
    if job.cell.import_ is not None:
        from sae_repro.train.imported import import_into

        d_in = store.d_in(job.hook)
        import_into(job.cell, folder, d_in=d_in, hook=job.hook, key=job.key, seed=job.seed)
        return
    if job.cell.baseline is not None:
        from sae_repro.train.baseline import baseline_into

        baseline_into(
            job.cell, job.settings, store, folder,
            hook=job.hook, key=job.key, seed=job.seed, metadata=job.metadata,
        )  # fmt: skip
        return
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
        save_with_metadata(trained.sae, job, folder, save)
        summary |= {"final": journal.metrics[-1], **trained.thresholds}
    write_text(
        folder / "metrics.jsonl", "".join(canonical_json(row) + "\n" for row in journal.metrics)
    )
    write_text(
        folder / "revival.jsonl", "".join(canonical_json(row) + "\n" for row in journal.revivals)
    )
    write_json(folder / "train.json", summary)
    shutil.rmtree(job.checkpoint, ignore_errors=True)


def save_with_metadata(sae: Any, job: CellJob, folder: Path, save: Callable[..., None]) -> None:
    """Write the SAE, its cfg.json saying what it was trained on."""
    from dataclasses import replace

    from sae_repro.train.folder import hook_metadata

    architecture = "-".join(
        [job.cell.activation]
        + ([job.cell.penalty] if job.cell.penalty != "none" else [])
        + ([f"matryoshka-{job.cell.prefixes}"] if job.cell.prefixes != "none" else [])
    )
    metadata = {
        **hook_metadata(job.hook),
        "training_architecture": architecture,
        **job.metadata,
    }
    save(replace(sae, metadata=metadata), folder)
