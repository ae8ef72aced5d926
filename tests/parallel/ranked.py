"""Ranks in processes of their own, joined by gloo, that train one cell together."""

import hashlib
import multiprocessing
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

HOOK = "blocks.0.hook_resid_post"


class Result(NamedTuple):
    """What a rank had at the end."""

    sha256: str
    """Of the SAE's tensors."""
    metrics: list[dict[str, Any]]
    sent: int
    held: int
    """Bytes of weights and moments."""


def train_on(
    number: int, folder: Path, cells: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[dict[str, Result]]:
    """By rank, the results of `cells` (fields of `Cell`), trained one after the other."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(number) as pool:
        return pool.starmap(
            _rank,
            [(rank, number, folder, dict(cells), dict(settings)) for rank in range(number)],
            chunksize=1,
        )


def result_of(trainer: Any, trained: Any, sent: int) -> Result:
    """Of a trainer that has run."""
    sha256 = hashlib.sha256()
    for tensor in trained.sae.weights.named().values():
        sha256.update(tensor.detach().contiguous().numpy().tobytes())
    optimisers = (
        [shard.optimiser for shard in trainer.shards]
        if hasattr(trainer, "shards")
        else [trainer.optimiser]
    )
    held = sum(
        tensor.nbytes
        for one in optimisers
        for tensor in (*one._named.values(), *(t for n in one._named for t in one.moments(n)))
    )
    return Result(sha256.hexdigest(), trained.journal.metrics, sent, held)


def _rank(
    rank: int, number: int, folder: Path, cells: dict[str, Any], settings: dict[str, Any]
) -> dict[str, Result]:
    os.environ["OMP_NUM_THREADS"] = "1"
    from sae_repro.numerics.kernels import choose

    choose("portable")
    import torch.distributed as dist

    from sae_repro.numerics.determinism import prepare
    from sae_repro.parallel import trainer_of
    from sae_repro.parallel.ranks import Distributed
    from sae_repro.params import Cell, Train
    from sae_repro.readers.shards import ActivationStore

    prepare(device="cpu", threads=1)
    rendezvous = folder.parent / f"rendezvous-{number}"
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=number
    )
    store, results = ActivationStore(folder), {}
    for name, fields in cells.items():
        ranks = Distributed()
        trainer = trainer_of(
            Cell.model_validate(fields), Train.model_validate(settings), store, HOOK, seed=0,
            checkpoint=folder.parent / f"{name}-{number}.checkpoint", ranks=ranks,
        )  # fmt: skip
        trained = trainer.run()
        results[name] = result_of(trainer, trained, ranks.sent)
    dist.barrier()
    dist.destroy_process_group()
    return results


def train_alone(
    folder: Path, cells: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Result]:
    """The results of `cells` on one process, this one, without torch.distributed."""
    from sae_repro.parallel import trainer_of
    from sae_repro.params import Cell, Train
    from sae_repro.readers.shards import ActivationStore

    results = {}
    for name, fields in cells.items():
        trainer = trainer_of(
            Cell.model_validate(fields), Train.model_validate(settings), ActivationStore(folder),
            HOOK, seed=0, checkpoint=folder.parent / f"{name}-alone.checkpoint",
        )  # fmt: skip
        results[name] = result_of(trainer, trainer.run(), 0)
    return results
