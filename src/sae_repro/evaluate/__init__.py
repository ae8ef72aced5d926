"""Stage `evaluate`: every SAE on held-out activations, in artifacts/evaluate/<cell>/.

One stage for all cells, which evaluates those side by side whose SAE has changed, and keeps the
others: `dvc repro` has no workers of its own, and takes time over every stage. A cell with several
seeds has a folder for each, and a metrics.json over all of them (see `over_seeds`).
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath

from sae_repro.cellstore import CellStore, bypassed, deliver
from sae_repro.contents import check, seal
from sae_repro.evaluate import consistency
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.evaluate.job import EvaluateJob, ReferenceJob, job_of
from sae_repro.evaluate.over_seeds import over_seeds
from sae_repro.files import read_json, write_json
from sae_repro.params import ConceptLabels, Evaluate, read_cells
from sae_repro.params.joint import is_joint
from sae_repro.pins import pinned_concepts
from sae_repro.progress import say, say_kept
from sae_repro.sidebyside import Work, side_by_side
from sae_repro.stage import STATE, StageContext


def run(context: StageContext) -> None:
    """Bring artifacts/evaluate up to date with artifacts/train, cell by cell."""
    store, out = CellStore(STATE / "cells"), context.artifacts("evaluate")
    settings = context.section(Evaluate, "evaluate")
    check(context.artifacts("corpus"))
    windows = ["windows"] if (context.artifacts("extract") / "windows").is_dir() else []
    check(context.artifacts("extract"), "manifest.json", *windows)
    if settings.concepts is not None:
        _check_labels(settings.concepts, context)
    if not settings.surface:
        _check_without_surface(settings, context)
    for stage in ("subject", "train"):
        check(context.artifacts(stage))
    evaluation, trained = Evaluation.of(context, settings, store), context.artifacts("train")
    cells = {
        name: {
            place: job_of(of_cell, trained / name / place, PurePath(name, place).as_posix())
            for place in cell.members()
        }
        for name, cell in read_cells(context.value("recipes"), context.value("cells")).items()
        for of_cell in (evaluation.for_cell(name),)
    }

    for line in _unsteered(evaluation, cells):
        say(f"evaluate: {line}")
    keys = {job.key for jobs in cells.values() for job in jobs.values()}
    made: list[EvaluateJob] = []

    def make_all(jobs: Sequence[EvaluateJob]) -> None:
        made.extend(jobs)
        say_kept("evaluate", len(jobs), len(keys))
        pieces: list[Work] = [*_references(evaluation, jobs), *_in_order(jobs)]
        side_by_side([(piece, 1) for piece in pieces], what="evaluate", unit="SAE")

    deliver(out, cells, store, summary="metrics.json", make_all=make_all)
    if not made and not bypassed():
        say_kept("evaluate", 0, len(keys))
    several = {name: jobs for name, jobs in cells.items() if len(jobs) > 1}
    compared = _comparisons(context, evaluation, several, out)
    consistency.deliver(out, compared, store)
    for name, jobs in several.items():
        measured = {place: read_json(out / name / place / "metrics.json") for place in jobs}
        whole = consistency.with_consistency(over_seeds(measured), out / name)
        write_json(out / name / "metrics.json", {"cell": name, **whole})
        seal(out / name)
    seal(out)


def _in_order(jobs: Sequence[EvaluateJob]) -> list[EvaluateJob]:
    """`jobs` hook by hook, whose cells share much in a worker; the shortest at the end.

    The hook of most cells comes last, and of a hook the widest SAEs first, so that no worker waits
    long for the last job of another, or begins with a hook for it alone.
    """
    of_hook = Counter(job.hook for job in jobs)

    def rank(job: EvaluateJob) -> tuple[int, str, int]:
        return of_hook[job.hook], job.hook, -int(read_json(job.sae / "train.json")["d_sae"])

    return sorted(jobs, key=rank)


def _comparisons(
    context: StageContext,
    evaluation: Evaluation,
    cells: Mapping[str, Mapping[str, EvaluateJob]],
    out: Path,
) -> dict[str, consistency.ConsistencyJob]:
    """The jobs that compare the seeds of each of `cells`, where that is chosen."""
    chosen = {}
    for name, jobs in cells.items():
        if "consistency" in evaluation.for_cell(name).settings.metrics:
            chosen[name] = jobs
        else:  # of a run that had it
            shutil.rmtree(out / name / consistency.FOLDER, ignore_errors=True)
    code = context.code(
        "sae_repro.evaluate.consistency.measure", "sae_repro.evaluate.consistency.job"
    )
    return {
        name: consistency.job_of(
            name,
            evaluation,
            code,
            {place: (job.sae, out / name / place) for place, job in jobs.items()},
            {place: job.key for place, job in jobs.items()},
        )
        for name, jobs in chosen.items()
    }


def _unsteered(
    evaluation: Evaluation, cells: Mapping[str, Mapping[str, EvaluateJob]]
) -> Iterator[str]:
    """Which cells are to be steered and can't be, a line per reason."""
    from sae_repro.evaluate.metrics.steering import why_not

    names: dict[str, list[str]] = {}
    for name, jobs in cells.items():
        if "steering" in evaluation.for_cell(name).settings.metrics:
            first = next(iter(jobs.values()))
            reason = why_not(evaluation.corpus, first.hook, first.target)
            names.setdefault(reason or "", []).append(name)
    for reason, of in names.items():
        if reason:
            yield f"steering is not measured ({reason}): {', '.join(of)}"


def _check_labels(labels: ConceptLabels, context: StageContext) -> None:
    """Refuse labels that mark nothing before SAEs are measured; say what only some don't."""
    from sae_repro.concepts.bank import check_spans
    from sae_repro.readers.shards import ActivationStore

    spans, store = pinned_concepts(labels, Path()), ActivationStore(context.artifacts("extract"))
    if store.manifest["pooling"] == "token":
        index = store.index("validation").whole()
        for line in check_spans(context.artifacts("corpus"), index, spans):
            say(f"evaluate: {line}")


def _check_without_surface(settings: Evaluate, context: StageContext) -> None:
    """Refuse a bank that would be empty before SAEs are measured."""
    from sae_repro.concepts.bank import check_without_surface

    own = settings.concepts
    spans = None if own is None else pinned_concepts(own, Path())
    check_without_surface(context.artifacts("corpus"), spans)


def _references(evaluation: Evaluation, jobs: Sequence[EvaluateJob]) -> list[ReferenceJob]:
    """The references that `jobs` are compared with, trained first: cells would wait for them."""
    manifest = read_json(evaluation.activations / "manifest.json")
    if manifest["pooling"] != "token":
        return []
    wanted = [job for job in jobs if "references" in job.study.settings.metrics]
    trained = [read_json(job.sae / "train.json") for job in wanted]
    read = (summary["hook"] for summary in trained if summary["status"] == "ok")
    hooks = dict.fromkeys(hook for hook in read if not is_joint(hook))
    return [
        ReferenceJob(evaluation.family(), hook, width)
        for hook in hooks
        for width in evaluation.settings.references
    ]
