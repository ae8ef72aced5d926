"""Stage `tune`: an Optuna study over cells; tune/trials.csv, tune/best.yaml, tune/figures.

It stands in tune/dvc.yaml, so that a plain `dvc repro` never starts it. A trial is a cell: trained
and evaluated as the stages would, into the store in which they look first. What the next
batch tries follows from the batches before it alone (`asking`), and a trial enters the journal once
all before it are there (`journal`): killed anywhere, run again, the same trials.csv.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.cellstore import CellStore
from sae_repro.evaluate.job import Evaluation
from sae_repro.files import replacing_folder, sha256_file
from sae_repro.params import Cell, Evaluate, Train, Tune, check_section
from sae_repro.sidebyside import side_by_side
from sae_repro.stage import STATE, StageContext
from sae_repro.train import jobs_of, steps_of
from sae_repro.tune.space import FOLDER, load_tune

if TYPE_CHECKING:
    from sae_repro.tune.asking import Asked
    from sae_repro.tune.journal import Journal
    from sae_repro.tune.trial import TrialJob

JOURNAL = FOLDER / "journal.log"
STORE = STATE / "cells"
LOOKS = STATE / "tune"
LOST_WORKERS = 3  # in one batch, before somebody should look why


def run(context: StageContext) -> None:
    """Bring the study to its trials, batch by batch, and write what it came to."""
    from sae_repro.pins import check_inputs
    from sae_repro.tune.figures import write_figures
    from sae_repro.tune.journal import Journal
    from sae_repro.tune.results import write_results
    from sae_repro.tune.telling import told_of

    _, corners = load_tune(Path())
    check_inputs(corners, Path())
    tune = context.section(Tune, "tune")
    evaluation = _evaluation(context, tune)
    journal = Journal(JOURNAL, tune, _identity(context, tune, evaluation.shared))
    for start in range(0, tune.trials, tune.batch):
        size = min(tune.batch, tune.trials - start)
        if len(journal.told()) < start + size:
            _run_batch(context, tune, evaluation, journal, start, size)
    trials = journal.told(tune.trials)
    told = [told_of(trial) for trial in trials]
    write_results(FOLDER, tune, journal.name, told)
    with replacing_folder(FOLDER / "figures") as folder:
        write_figures(folder, tune, trials, told, grid=Path("reports/tables/cells.csv"))


def _evaluation(context: StageContext, tune: Tune) -> Evaluation:
    settings = context.section(Evaluate, "evaluate")
    if tune.metrics is not None:
        settings = settings.model_copy(update={"metrics": tune.metrics})
    return Evaluation.of(context, settings, CellStore(STORE))


def _identity(context: StageContext, tune: Tune, shared: str) -> dict[str, Any]:
    """All that decides what trials are asked and what they come to; their number does not."""
    return {
        "tune": tune.model_dump(mode="json", exclude={"trials"}),
        "study seed": context.value("seed"),
        "train": context.section(Train, "train").model_dump(mode="json"),
        "activations": sha256_file(context.artifacts("extract") / "manifest.json"),
        "the code of train, or the lock": context.code("sae_repro.train.makers.trained"),
        "evaluate, its code or inputs": shared,
    }


def _run_batch(
    context: StageContext,
    tune: Tune,
    evaluation: Evaluation,
    journal: "Journal",
    start: int,
    size: int,
) -> None:
    from sae_repro.tune.asking import ask_batch
    from sae_repro.tune.results import best_so_far
    from sae_repro.tune.telling import finished_trial, told_of

    earlier = journal.told(start)
    asked = ask_batch(tune, journal.name, earlier, size)
    done = len(journal.told()) - start
    for trial in asked[:done]:
        journal.check(trial)
    jobs = _jobs(context, tune, evaluation, journal, asked)
    best = best_so_far(tune, [told_of(trial) for trial in journal.told()])
    what = f"tune {start}…{start + size - 1} of {tune.trials}, {best}"
    steps = steps_of(context)
    _work([(job, steps) for job in jobs[done:]], what)
    for trial, job in list(zip(asked, jobs, strict=True))[done:]:
        journal.tell(finished_trial(tune, trial, job.cell.key, job.outcome()))


def _jobs(
    context: StageContext,
    tune: Tune,
    evaluation: Evaluation,
    journal: "Journal",
    asked: Sequence["Asked"],
) -> list["TrialJob"]:
    from sae_repro.tune.pruning import Rungs
    from sae_repro.tune.trial import TrialJob

    cells = {
        str(a.number): check_section(Cell, a.choices, within=f"trial {a.number}") for a in asked
    }
    training = jobs_of(context, CellStore(STORE), cells)
    told = tuple(journal.told(asked[0].number))
    steps = steps_of(context)
    return [
        TrialJob(
            cell=training[str(a.number), "."],
            evaluation=evaluation,
            rungs=None if tune.pruner is None else Rungs(tune, journal.name, told, a, steps, LOOKS),
        )
        for a in asked
    ]


def _work(pieces: Sequence[tuple["TrialJob", int]], what: str) -> None:
    """Run a batch; where a worker is lost (killed, out of memory) what it had not finished again.

    What others finished is in the store, and a half-trained cell goes on from its checkpoint.
    """
    import sys

    from joblib.externals.loky.process_executor import TerminatedWorkerError

    from sae_repro.errors import StudyError

    for _ in range(LOST_WORKERS):
        try:
            side_by_side(pieces, what=what, unit="step")
            return
        except TerminatedWorkerError:
            print("tune: a worker was lost; its trials start again", file=sys.stderr)
    raise StudyError(
        f"{LOST_WORKERS} workers were lost in one batch (out of memory?): set SAE_REPRO_JOBS to "
        "fewer, and run again: nothing that is finished is lost"
    )
