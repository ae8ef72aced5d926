"""Stage `tune`: an Optuna study over cells, or one per recipe and target L0.

tune/trials.csv, tune/best.yaml, tune/tuning.csv, tune/tuning.md, tune/figures. It stands in
tune/dvc.yaml, so that a plain `dvc repro` never starts it. A trial is a cell, trained as the stage
train would, into the store in which it looks first, and measured on the tuning documents, which
nothing else is measured on (`measuring`). Several studies run in rounds: a batch of each at once.
After their trials, settings are compared over the L0s and over seeds (`confirming`).

A batch follows from the
batches before it alone (`proposals`), and a trial enters the journal once all before it are there
(`optuna_journal`): killed anywhere and run again, the search ends with the same trials.csv.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.cellstore import CellStore
from sae_repro.contents import check
from sae_repro.files import replacing_folder, sha256_file
from sae_repro.params import Cell, Evaluate, Train, Tune, check_section
from sae_repro.progress import say
from sae_repro.sidebyside import WorkerLostError, side_by_side
from sae_repro.stage import STATE, StageContext
from sae_repro.train import jobs_of
from sae_repro.tune.measuring import Measuring, check_tuning_split
from sae_repro.tune.rounds import check_all_kept
from sae_repro.tune.space import FOLDER, completed, load_tune, parts_of, total

if TYPE_CHECKING:
    from sae_repro.tune.job import Outcome, TrialJob
    from sae_repro.tune.optuna_journal import Journal
    from sae_repro.tune.proposals import Proposal

JOURNAL = FOLDER / "journal.log"
STORE = STATE / "cells"
LOOKS = STATE / "tune"
LOST_WORKERS = 3  # in one batch, before the stage gives up


def run(context: StageContext) -> None:
    """Run the missing trials, batch by batch; write the record, tables and figures."""
    from sae_repro.preflight import check_inputs
    from sae_repro.provenance import check_recorded
    from sae_repro.tune.confirming import confirm
    from sae_repro.tune.figures import write_figures
    from sae_repro.tune.optuna_journal import Journal
    from sae_repro.tune.records import record_of
    from sae_repro.tune.results import closing_lines, write_results
    from sae_repro.tune.tables import write_tables

    _, corners = load_tune(Path())
    check_all_kept(corners.extract, Path())
    check(context.artifacts("extract"), "manifest.json")
    check_tuning_split(context.artifacts("extract"))
    check_inputs(corners, Path())
    tune = completed(context.section(Tune, "tune"), context.value("recipes"))
    measuring = Measuring(
        context.section(Evaluate, "evaluate"), context.code("sae_repro.tune.measuring")
    )
    journal = Journal(JOURNAL, tune, _identity(context, tune, measuring))
    whole, round_ = total(tune), tune.batch * max(1, len(parts_of(tune)))
    for start in range(0, whole, round_):
        size = min(round_, whole - start)
        if len(journal.trials()) < start + size:
            _run_batch(context, tune, measuring, journal, start, size)
    trials = journal.trials(whole)
    records = [record_of(trial) for trial in trials]
    tuned = confirm(tune, records, lambda cells: _measured(context, measuring, cells))
    write_results(FOLDER, tune, journal.name, records, tuned)
    write_tables(FOLDER, tune, records, tuned)
    grid = Path("reports/tables")
    check_recorded(Path(), "compare", grid)
    with replacing_folder(FOLDER / "figures") as folder:
        write_figures(folder, tune, trials, records, grid=grid / "cells.csv")
    for line in closing_lines(tune, records, tuned):
        say(line)


def _identity(context: StageContext, tune: Tune, measuring: Measuring) -> dict[str, Any]:
    """All that decides which trials are proposed and their results; their number does not."""
    return {
        # further seeds are those of the comparison after the trials
        "tune": tune.model_dump(mode="json", exclude={"trials": True, "studies": {"seeds"}}),
        "recipes as they are": {name: dict(values) for name, values in tune.defaults.items()},
        "study seed": context.value("seed"),
        "train": context.section(Train, "train").model_dump(mode="json"),
        "activations": sha256_file(context.artifacts("extract") / "manifest.json"),
        "the code of train, or the lock": context.code("sae_repro.train.makers.trained"),
        "evaluate": measuring.settings.model_dump(
            mode="json", include={"batch_size", "dead_threshold", "threads", "device"}
        ),
        "the code of measuring": measuring.code,
        "the code of proposals": context.code("sae_repro.tune.proposals"),
    }


def _run_batch(
    context: StageContext,
    tune: Tune,
    measuring: Measuring,
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
    jobs = _jobs(context, tune, measuring, journal, proposals)
    best = best_so_far(tune, [record_of(trial) for trial in journal.trials()])
    what = f"tune {start}…{start + size - 1} of {total(tune)}, {best}"
    todo = list(zip(proposals, jobs, strict=True))[completed:]
    times = _work([(job, job.cell.steps) for _, job in todo], what)
    for (proposal, job), seconds in zip(todo, times, strict=True):
        journal.append(finished_trial(tune, proposal, job.cell.key, job.outcome(), seconds))


def _jobs(
    context: StageContext,
    tune: Tune,
    measuring: Measuring,
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
            measuring=measuring,
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
    searched -= {"recipe"}
    values = ", ".join(f"{k} {v}" for k, v in proposal.choices.items() if k in searched)
    return f"trial {proposal.number}, {recipe_of(tune, proposal.params)} ({values})"


def _measured(
    context: StageContext, measuring: Measuring, cells: Mapping[str, Mapping[str, Any]]
) -> dict[str, "Outcome"]:
    """The results of cells by their names for people, trained and measured like trials."""
    from sae_repro.tune.job import TrialJob

    checked = {name: check_section(Cell, choices, within=name) for name, choices in cells.items()}
    training = jobs_of(context, CellStore(STORE), checked)
    jobs = {name: TrialJob(training[name, "."], measuring, rungs=None, shown=()) for name in cells}
    # one job a cell, however many names it has
    once = {job.cell.key: job for job in jobs.values()}
    missing = [job for job in once.values() if not CellStore(STORE).find(measuring.key(job.cell))]
    if missing:
        _work([(job, job.cell.steps) for job in missing], "tune, comparing settings")
    return {name: job.outcome() for name, job in jobs.items()}


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
