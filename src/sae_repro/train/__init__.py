"""Stage `train`: one cell = one SAE, in artifacts/train/<cell>/.

One stage for all cells, which trains those side by side that have changed, and keeps the others:
`dvc repro` has no workers of its own, and takes time over every stage. A cell's weights don't
depend on its companions.

A cell with `seeds` is one SAE per seed, in artifacts/train/<cell>/seed-<n>/, each of them the same
as that of a cell with this seed alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from sae_repro.cellstore import CellStore, bypassed, deliver
from sae_repro.contents import check
from sae_repro.errors import StudyError
from sae_repro.live import Followed, curves
from sae_repro.params import Cell, Train, read_cells
from sae_repro.params.cell_rules import width_faults
from sae_repro.params.joint import joint
from sae_repro.pins import check_imports
from sae_repro.progress import say_kept
from sae_repro.readers.joined import JoinedStore
from sae_repro.readers.shards import ActivationStore
from sae_repro.stage import ROLLING, STATE, StageContext
from sae_repro.train.job import CellJob, cell_key
from sae_repro.train.rounds import check_alone, train_all


def run(context: StageContext) -> None:
    """Bring artifacts/train up to date with the study's cells."""
    store = CellStore(STATE / "cells")
    cells = read_cells(context.value("recipes"), context.value("cells"))
    # before any cell is trained
    check_imports(cells, Path())
    check(context.artifacts("extract"), "manifest.json")
    activations = JoinedStore(context.artifacts("extract"))
    _check_widths(cells, activations)
    check_alone(activations)
    by_name: dict[str, dict[str, CellJob]] = {name: {} for name in cells}
    for (name, place), job in jobs_of(context, store, cells).items():
        by_name[name][place] = job

    keys = {job.key for jobs in by_name.values() for job in jobs.values()}
    made: list[CellJob] = []

    def make_all(jobs: Sequence[CellJob]) -> None:
        made.extend(jobs)
        say_kept("train", len(jobs), len(keys))
        with curves(_followed(by_name, jobs)):
            train_all(jobs, store, activations)

    out = context.artifacts("train")
    deliver(out, by_name, store, summary="train.json", make_all=make_all)
    if not made and not bypassed():
        say_kept("train", 0, len(keys))


def _check_widths(cells: Mapping[str, Cell], activations: ActivationStore) -> None:
    """StudyError for cells that can't be on activations so wide: known only now of some models."""
    first = next(iter(activations.manifest["hooks"]))
    faults = [
        f"cells.{name}.{fault}"
        for name, cell in cells.items()
        for fault in width_faults(cell, activations.d_in(_hook_of(cell, first)))
    ]
    if faults:
        raise StudyError("\n".join(faults))


def _hook_of(cell: Cell, first: str) -> str:
    """What a cell reads: its hooks side by side, its hook, or the `first` that was extracted."""
    return joint(cell.hooks) if cell.hooks is not None else cell.hook or first


def _followed(
    cells: Mapping[str, Mapping[str, CellJob]], jobs: Sequence[CellJob]
) -> dict[str, Followed]:
    """The SAEs that `jobs` make, by name."""
    keys = {job.key for job in jobs}
    return {
        job.name: Followed(key=job.key, hook=job.hook)
        for places in cells.values()
        for job in places.values()
        if job.key in keys and job.cell.kind == "trained"
    }


def jobs_of(
    context: StageContext, store: CellStore, cells: Mapping[str, Cell]
) -> dict[tuple[str, str], CellJob]:
    """A job for every SAE of `cells`, by cell and place below the cell's folder.

    The stage declares `train` and `seed`.
    """
    settings = context.section(Train, "train")
    folder = context.artifacts("extract")
    activations = JoinedStore(folder)
    codes = {
        # a cell follows from its own maker alone: other formats' converters retrain nothing
        kind: context.code(f"sae_repro.train.makers.{kind}")
        for kind in {cell.kind for cell in cells.values()}
    }
    metadata = _metadata(activations)
    seed = context.value("seed")
    jobs = {}
    saes = {
        (name, place): sae for name, cell in cells.items() for place, sae in cell.members().items()
    }
    for member, cell in saes.items():
        hook = _hook_of(cell, next(iter(activations.manifest["hooks"])))
        key = cell_key(cell, settings, hook, seed, activations, metadata, codes[cell.kind])
        jobs[member] = CellJob(
            name=PurePath(*member).as_posix(),
            cell=cell,
            settings=settings,
            hook=hook,
            seed=seed,
            key=key,
            activations=folder,
            store=store.folder,
            checkpoint=STATE / "checkpoints" / key,
            metadata=metadata,
            rolling=ROLLING,
        )
    return jobs


def _metadata(activations: ActivationStore) -> dict[str, Any]:
    manifest = activations.manifest
    return {
        "context_size": manifest["context"],
        "prepend_bos": manifest["prepend_bos"] is not False,
        **manifest["names"],
    }
