"""Training of one cell in parts, by one process or by several that torchrun starts.

A cell with `micro_batches` or `latent_shards` is computed part by part, and what the parts
contribute is summed in a fixed order: the number of processes changes no bit. The stage `train`
does it in one process, `sae-repro parallel` in several, into the same store under the same key.

ranks          exchange in a fixed order, among any number of processes
micro_batches  a batch in parts; every process holds the whole cell
shards         latents in parts: the step of one shard
sharded        a cell whose processes hold their own latents only
footprint      memory and traffic per process, computed
"""

from pathlib import Path

from sae_repro.parallel.ranks import ALONE, Ranks
from sae_repro.params import Cell, Train
from sae_repro.readers.shards import ActivationStore
from sae_repro.training import Trainer


def trainer_of(
    cell: Cell,
    settings: Train,
    store: ActivationStore,
    hook: str,
    *,
    seed: int,
    checkpoint: Path,
    ranks: Ranks = ALONE,
) -> Trainer:
    """The trainer of a cell, by its parts; `ranks` are the processes that share them."""
    if cell.latent_shards > 1:
        from sae_repro.parallel.sharded import ShardedTrainer

        return ShardedTrainer(
            cell, settings, store, hook, seed=seed, checkpoint=checkpoint, ranks=ranks
        )
    if cell.micro_batches > 1:
        from sae_repro.parallel.micro_batches import DataParallelTrainer

        return DataParallelTrainer(
            cell, settings, store, hook, seed=seed, checkpoint=checkpoint, ranks=ranks
        )
    return Trainer(cell, settings, store, hook, seed=seed, checkpoint=checkpoint)


__all__ = ["ALONE", "Ranks", "trainer_of"]
