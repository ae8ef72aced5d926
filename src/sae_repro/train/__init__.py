"""Stage `train`: one cell = one SAE, in artifacts/train/<cell>/.

A cell with `seeds` is one SAE per seed, in artifacts/train/<cell>/seed-<n>/, each of them the same
as that of a cell with this seed alone.

The stage of one cell also sees to all the others that are missing: `dvc repro` has no workers of
its own. It reads their choices from params.yaml for that, which changes nothing in its own out:
a cell's weights don't depend on its companions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_repro.cellstore import CellStore, bypassed, code_digest
from sae_repro.files import read_json, replacing_folder, write_json
from sae_repro.params import Cell, Train, check_section, read_yaml
from sae_repro.pins import check_imports
from sae_repro.sidebyside import side_by_side
from sae_repro.stage import STATE, StageContext
from sae_repro.store import ActivationStore
from sae_repro.train.grid import CellJob, cell_key, present, train_into

CODE = ("autoencoders", "train", "store.py", "random.py", "params/cell.py", "compute.py")
IMPORTED_CODE = (
    "autoencoders/interchange",
    *CODE,
)  # a cell trained here knows nothing of other formats


def run(context: StageContext) -> None:
    """Put the stage's own cell into artifacts/train, training whatever is missing."""
    store = CellStore(STATE / "cells")
    out = context.artifacts("train")
    jobs = jobs_of(context, store, _cells(context))
    own = {place: job for (name, place), job in jobs.items() if name == context.key}
    if not bypassed() and any(store.find(job.key) is None for job in own.values()):
        missing = {
            job.key: job
            for (name, place), job in jobs.items()
            if store.find(job.key) is None
            and (name == context.key or not present(out / name / place, job.key))
        }
        steps = steps_of(context)
        side_by_side([(job, steps) for job in missing.values()], what="train", unit="step")
    with replacing_folder(out / context.key) as folder:
        for place, job in own.items():
            if bypassed():
                (folder / place).mkdir(exist_ok=True)
                train_into(job, folder / place, lambda step: None)
            else:
                store.take(job.key, folder / place)
            _name(folder / place, context.key)


def _cells(context: StageContext) -> dict[str, Cell]:
    """Every cell of the study; the stage's own choices are those DVC declared."""
    raw = read_yaml(Path("params.yaml"))
    cells = {
        name: check_section(Cell, choices, within=f"cells.{name}")
        for name, choices in raw["cells"].items()
    }
    cells[context.key] = context.section(Cell, f"cells.{context.key}")
    check_imports(cells, Path())  # before any cell is trained
    return cells


def jobs_of(
    context: StageContext, store: CellStore, cells: Mapping[str, Cell]
) -> dict[tuple[str, str], CellJob]:
    """A job for every SAE of `cells`, by cell and place below the cell's folder.

    The stage declares `train` and `seed`.
    """
    settings = context.section(Train, "train")
    folder = context.artifacts("extract")
    activations = ActivationStore(folder)
    codes = {
        imported: code_digest(context.root, *(IMPORTED_CODE if imported else CODE))
        for imported in {cell.import_ is not None for cell in cells.values()}
    }
    metadata = _metadata(activations)
    seed = context.value("seed")
    jobs = {}
    saes = {
        (name, place): sae for name, cell in cells.items() for place, sae in cell.members().items()
    }
    for where, cell in saes.items():
        hook = cell.hook or next(iter(activations.manifest["hooks"]))
        code = codes[cell.import_ is not None]
        key = cell_key(cell, settings, hook, seed, activations, metadata, code)
        jobs[where] = CellJob(
            cell=cell,
            settings=settings,
            hook=hook,
            seed=seed,
            key=key,
            activations=folder,
            store=store.folder,
            checkpoint=STATE / "checkpoints" / key,
            metadata=metadata,
        )
    return jobs


def _metadata(activations: ActivationStore) -> dict[str, Any]:
    manifest = activations.manifest
    return {
        "context_size": manifest["context"],
        "prepend_bos": manifest["prepend_bos"],
        **manifest["names"],
    }


def steps_of(context: StageContext) -> int:
    """Training steps of a cell, the same for all."""
    settings = context.section(Train, "train")
    rows = ActivationStore(context.artifacts("extract")).manifest["tokens"]["train"]
    return int(settings.epochs * (rows // settings.batch_size))


def _name(folder: Path, name: str) -> None:
    """The store knows contents, not names: say in the out which cell this is."""
    summary = read_json(folder / "train.json")
    write_json(folder / "train.json", {"cell": name, **summary})
