"""Stage `tune`: an Optuna study over cells; tune/trials.csv, tune/best.yaml, tune/figures.

It stands in tune/dvc.yaml, so that a plain `dvc repro` never starts it. A trial is a cell: trained
and evaluated as the stages would, into the store in which they look first. A batch follows from the
batches before it alone (`proposals`), and a trial enters the journal once all before it are there
(`journal`): killed anywhere and run again, the study ends with the same trials.csv.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.cellstore import CellStore
from sae_repro.contents import check
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.files import replacing_folder, sha256_file
from sae_repro.params import Cell, Evaluate, Train, Tune, check_section
from sae_repro.progress import say
from sae_repro.sidebyside import WorkerLostError, side_by_side
from sae_repro.stage import STATE, StageContext
from sae_repro.train import jobs_of
from sae_repro.tune.space import FOLDER, load_tune

if TYPE_CHECKING:
    from sae_repro.tune.job import TrialJob
    from sae_repro.tune.optuna_journal import Journal
    from sae_repro.tune.proposals import Proposal

JOURNAL = FOLDER / "journal.log"
STORE = STATE / "cells"
LOOKS = STATE / "tune"
LOST_WORKERS = 3  # in one batch, before the stage gives up


def run(context: StageContext) -> None:
    """Run the missing trials, batch by batch; write trials.csv, best.yaml and the figures."""
    from sae_repro.preflight import check_inputs
    from sae_repro.provenance import check_recorded
    from sae_repro.tune.figures import write_figures
    from sae_repro.tune.optuna_journal import Journal
    from sae_repro.tune.records import record_of
    from sae_repro.tune.results import closing_lines, write_results

    for stage in ("corpus", "subject"):
        check(context.artifacts(stage))
    check(context.artifacts("extract"), "manifest.json", "windows")
    _, corners = load_tune(Path())
    check_inputs(corners, Path())
    tune = context.section(Tune, "tune").with_recipes(context.value("recipes"))
    evaluation = _evaluation(context, tune)
    journal = Journal(JOURNAL, tune, _identity(context, tune, evaluation.shared))
    for start in range(0, tune.trials, tune.batch):
        size = min(tune.batch, tune.trials - start)
        if len(journal.trials()) < start + size:
            _run_batch(context, tune, evaluation, journal, start, size)
    trials = journal.trials(tune.trials)
    records = [record_of(trial) for trial in trials]
    write_results(FOLDER, tune, journal.name, records)
    grid = Path("reports/tables")
    check_recorded(Path(), "compare", grid)
    with replacing_folder(FOLDER / "figures") as folder:
        write_figures(folder, tune, trials, records, grid=grid / "cells.csv")
    for line in closing_lines(tune, records):
        say(line)


def _evaluation(context: StageContext, tune: Tune) -> Evaluation:
    settings = context.section(Evaluate, "evaluate")
    if tune.metrics is not None:
        settings = settings.model_copy(update={"metrics": tune.metrics})
    return Evaluation.of(context, settings, CellStore(STORE))


def _identity(context: StageContext, tune: Tune, shared: str) -> dict[str, Any]:
    """All that decides which trials are proposed and their results; their number does not."""
    return {
        "tune": tune.model_dump(mode="json", exclude={"trials"}),
        "study seed": context.value("seed"),
        "train": context.section(Train, "train").model_dump(mode="json"),
        "activations": sha256_file(context.artifacts("extract") / "manifest.json"),
        "the code of train, or the lock": context.code("sae_repro.train.makers.trained"),
        "evaluate, its code or inputs": shared,
        "the code of proposals": context.code("sae_repro.tune.proposals"),
    }


def _run_batch(
    context: StageContext,
    tune: Tune,
    evaluation: Evaluation,
    journal: "Journal",
    start: int,
    size: int,
) -> None:
    from sae_repro.tune.proposals import propose_batch
    from sae_repro.tune.records import finished_trial, record_of
    from sae_repro.tune.results import best_so_far

    earlier = journal.trials(start)
    proposals = propose_batch(tune, journal.name, earlier, size)
    completed = len(journal.trials()) - start
    for proposal in proposals[:completed]:
        journal.check(proposal)
    jobs = _jobs(context, tune, evaluation, journal, proposals)
    best = best_so_far(tune, [record_of(trial) for trial in journal.trials()])
    what = f"tune {start}…{start + size - 1} of {tune.trials}, {best}"
    todo = list(zip(proposals, jobs, strict=True))[completed:]
    times = _work([(job, job.cell.steps) for _, job in todo], what)
    for (proposal, job), seconds in zip(todo, times, strict=True):
        journal.append(finished_trial(tune, proposal, job.cell.key, job.outcome(), seconds))


def _jobs(
    context: StageContext,
    tune: Tune,
    evaluation: Evaluation,
    journal: "Journal",
    proposals: Sequence["Proposal"],
) -> list["TrialJob"]:
    from sae_repro.tune.job import TrialJob
    from sae_repro.tune.pruning import Rungs

    cells = {
        _name(tune, p): check_section(Cell, p.choices, within=f"trial {p.number}")
        for p in proposals
    }
    training = jobs_of(context, CellStore(STORE), cells)
    earlier = tuple(journal.trials(proposals[0].number))
    return [
        TrialJob(
            cell=training[_name(tune, p), "."],
            evaluation=evaluation,
            rungs=None
            if tune.pruner is None
            else Rungs(tune, journal.name, earlier, p, training[_name(tune, p), "."].steps, LOOKS),
            shown=(*tune.objectives, *tune.constraints),
        )
        for p in proposals
    ]


def _name(tune: Tune, proposal: "Proposal") -> str:
    """A trial for people: `trial 13, topk: expansion 4, k 6`."""
    from sae_repro.tune.space import recipe_of

    searched = {name.rpartition(".")[2] for name in proposal.params} | {"k", "target_l0"}
    values = ", ".join(f"{k} {v}" for k, v in proposal.choices.items() if k in searched)
    return f"trial {proposal.number}, {recipe_of(tune, proposal.params)} ({values})"


def _work(pieces: Sequence[tuple["TrialJob", int]], what: str) -> list[float]:
    """Run a batch; the seconds of each trial.

    After the loss of a worker (killed, out of memory), its unfinished trials run again: finished
    cells are in the store, and a half-trained cell goes on from its checkpoint.
    """
    for attempt in range(1, LOST_WORKERS + 1):
        try:
            return side_by_side(pieces, what=what, unit="step")
        except WorkerLostError as error:
            if attempt == LOST_WORKERS:
                raise WorkerLostError(f"{LOST_WORKERS} times in one batch: {error}") from None
            print("tune: a worker was lost; restarting its trials", file=sys.stderr)
    raise AssertionError  # LOST_WORKERS ≥ 1
