"""Stage `evaluate`: every SAE on held-out activations, in artifacts/evaluate/<cell>/.

One stage for all cells, which evaluates those side by side whose SAE has changed, and keeps the
others: `dvc repro` has no workers of its own, and takes time over every stage. A cell with several
seeds has a folder for each, and a metrics.json over all of them (see `over_seeds`).
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from sae_repro.cellstore import CellStore, bypassed, members, prune
from sae_repro.evaluate.job import EvaluateJob, Evaluation, ReferenceJob
from sae_repro.evaluate.over_seeds import over_seeds
from sae_repro.files import read_json, replacing_folder, write_json
from sae_repro.params import Evaluate
from sae_repro.pins import check_concepts
from sae_repro.sidebyside import Work, side_by_side
from sae_repro.stage import STATE, StageContext


def run(context: StageContext) -> None:
    """Bring artifacts/evaluate up to date with artifacts/train, cell by cell."""
    store, out = CellStore(STATE / "cells"), context.artifacts("evaluate")
    names = list(context.value("cells"))
    settings = context.section(Evaluate, "evaluate")
    if settings.concepts is not None:
        check_concepts(settings.concepts, Path())
    prune(names, out.parent)  # the first stage that reads all cells' folders
    evaluation, trained = Evaluation.of(context, settings, store), context.artifacts("train")
    jobs = {
        name: {place: evaluation.job(trained / name / place) for place in members(trained / name)}
        for name in names
    }
    changed = {name: mine for name, mine in jobs.items() if not _present(out / name, mine)}
    if not bypassed():
        missing = {
            job.key: job
            for name, mine in changed.items()
            for place, job in mine.items()
            if store.find(job.key) is None and _key(out / name / place) != job.key
        }
        pieces: list[Work] = [*_references(evaluation, missing.values()), *missing.values()]
        if pieces:
            side_by_side([(piece, 1) for piece in pieces], what="evaluate", unit="SAE")
    for name, mine in changed.items():
        _assemble(name, mine, store, out / name)


def _references(evaluation: Evaluation, jobs: Iterable[EvaluateJob]) -> list[ReferenceJob]:
    """What trains the references of `jobs` first: two cells would not wait for one another's."""
    manifest = read_json(evaluation.activations / "manifest.json")
    if "references" not in evaluation.settings.metrics or manifest["pooling"] != "token":
        return []
    trained = [read_json(job.sae / "train.json") for job in jobs]
    hooks = dict.fromkeys(summary["hook"] for summary in trained if summary["status"] == "ok")
    return [
        ReferenceJob(evaluation.family(), hook, width)
        for hook in hooks
        for width in evaluation.settings.references
    ]


def _present(folder: Path, jobs: Mapping[str, EvaluateJob]) -> bool:
    """Whether a cell's folder in artifacts/evaluate is the finished one of `jobs`."""
    return members(folder) == list(jobs) and all(
        _key(folder / place) == job.key for place, job in jobs.items()
    )


def _key(folder: Path) -> str | None:
    path = folder / "metrics.json"
    return read_json(path).get("key") if path.is_file() else None


def _assemble(name: str, jobs: Mapping[str, EvaluateJob], store: CellStore, out: Path) -> None:
    """Put a cell's folder into artifacts/evaluate: from the store, or as far as it is there."""
    with replacing_folder(out) as folder:
        for place, job in jobs.items():
            if bypassed():
                job.evaluate(folder / place)
            elif store.find(job.key) is None:  # a seed that was there already
                shutil.copytree(out / place, folder / place)
                continue
            else:
                store.take(job.key, folder / place)
            _name(folder / place, name, job.key)
        if len(jobs) > 1:
            measured = {place: read_json(folder / place / "metrics.json") for place in jobs}
            write_json(folder / "metrics.json", {"cell": name, **over_seeds(measured)})


def _name(folder: Path, name: str, key: str) -> None:
    """The store knows contents, not names: say in the out which cell this is."""
    measured = read_json(folder / "metrics.json")
    write_json(folder / "metrics.json", {"cell": name, "key": key, **measured})
