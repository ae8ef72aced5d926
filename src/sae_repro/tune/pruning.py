"""Hyperband on FVU at checkpoints, on tuning documents, without a change to training.

A cell's FVU at a checkpoint is a function of the cell alone. Whether it stops a trial depends on it
and on earlier batches, never on the other trials of the batch: so the same trials are stopped in
any order of completion, and wherever a worker was killed.
"""

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, create_trial

from sae_repro.cellstore import CellStore
from sae_repro.errors import StudyError
from sae_repro.files import digest, read_object, write_json
from sae_repro.params import Tune
from sae_repro.readers.joined import JoinedStore, LevelledStore
from sae_repro.train.job import CellJob, make_into, make_measured
from sae_repro.tune.measuring import measure, tuning_batches
from sae_repro.tune.proposals import Proposal, quiet, study_of

if TYPE_CHECKING:
    from sae_repro.evaluate.held_out import Batch

BATCH_ROWS = 4096  # activations at once
WORST = 1e9  # reported for an FVU that is not finite


class _TrialPruned(Exception):  # noqa: N818 - control flow, not an error
    """Leaves the trainer from its progress report."""


@dataclass(frozen=True)
class Looks:
    """A trial's reports to the pruner, and its verdict."""

    reports: dict[int, float]
    pruned: bool
    notes: dict[str, Any]
    """The pruner's own attributes: the value at each rung."""


@dataclass(frozen=True)
class Rungs:
    """The rungs at which one trial may be stopped, given earlier batches; pickles to a worker."""

    tune: Tune
    name: str
    earlier: tuple[FrozenTrial, ...]
    proposal: Proposal
    steps: int
    folder: Path
    """Folder of reports, kept between runs: a file per cell."""

    def train(self, job: CellJob, progress: Callable[[int], None]) -> Looks:
        """Train `job` into its store until it ends or the pruner stops it."""
        path = self.path(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            result = self.replay(job)
            ended = _read(path)[1] and CellStore(job.store).find(job.key)
            if result.pruned or ended:
                return result
            _drop_checkpoint_without_reports(job, result.reports)
            try:
                self._train(job, progress)
            except _TrialPruned:
                from sae_repro.training import drop_checkpoint

                drop_checkpoint(job.checkpoint)
        return self.replay(job)

    def replay(self, job: CellJob) -> Looks:
        """The pruner's verdict on the recorded reports, replayed in order."""
        assert self.tune.pruner is not None
        pruner = optuna.pruners.HyperbandPruner(
            min_resource=self.tune.pruner.min_steps,
            max_resource=self.steps,
            reduction_factor=self.tune.pruner.reduction_factor,
        )
        reports, _ = _read(self.path(job))
        with quiet():
            study, trial = self._trial(pruner)
            scores: dict[int, float] = {}
            pruned = False
            for step, fvu in sorted(reports.items()):
                trial.report(fvu, step)
                scores[step] = fvu
                pruned = trial.should_prune()
                if pruned:
                    break
            notes = study.get_trials(deepcopy=False)[self.proposal.number].system_attrs
        return Looks(scores, pruned, dict(notes))

    def _trial(self, pruner: optuna.pruners.BasePruner) -> tuple[optuna.Study, optuna.Trial]:
        """The trial under its number, which decides its bracket, among the earlier batches."""
        study = study_of(self.tune, self.name, self.earlier, pruner)
        running = optuna.trial.TrialState.RUNNING
        study.add_trials(
            [create_trial(state=running)] * (self.proposal.number - len(self.earlier))
            + [
                create_trial(
                    state=running,
                    params=self.proposal.params,
                    distributions=self.proposal.distributions,
                )
            ]
        )
        frozen = study.get_trials(deepcopy=False)[self.proposal.number]
        return study, optuna.Trial(study, frozen._trial_id)

    def _train(self, job: CellJob, progress: Callable[[int], None]) -> None:
        def watched(done: int) -> None:
            progress(done)
            if self._report(job, done) and self.replay(job).pruned:
                raise _TrialPruned

        with CellStore(job.store).making(job.key) as folder:
            if folder is not None:
                make_measured(job, folder, watched)
        if folder is None:
            # made by the stage train, without reports: trained again, for these
            with tempfile.TemporaryDirectory() as scratch:
                make_into(job, Path(scratch), watched)
        _write(self.path(job), _read(self.path(job))[0], ended=True)

    def _report(self, job: CellJob, done: int) -> bool:
        """Report the last checkpoint before step `done`; False without one, or once recorded."""
        assert self.tune.pruner is not None
        step = last_checkpoint(job, done)
        reports, _ = _read(self.path(job))
        if not step or step in reports:
            return False
        reports[step] = tuning_fvu(job, self.tune.pruner.tokens)
        _write(self.path(job), reports, ended=False)
        return True

    def path(self, job: CellJob) -> Path:
        """The file of the cell's reports."""
        assert self.tune.pruner is not None
        return self.folder / f"{digest([job.key, self.tune.pruner.tokens])}.json"


def last_checkpoint(job: CellJob, done: int) -> int:
    """The step of the last checkpoint when step number `done` − 1 has just been logged; or 0."""
    return (done - 1) // job.settings.checkpoint_every * job.settings.checkpoint_every


def tuning_fvu(job: CellJob, tokens: int) -> float:
    """FVU of a cell's last checkpoint on the first `tokens` tuning activations."""
    from sae_repro.autoencoders import Weights, levelled
    from sae_repro.training import finished_sae, load_checkpoint

    checkpoint = load_checkpoint(job.checkpoint)
    assert checkpoint is not None
    names = {field.name for field in fields(Weights)}
    weights = Weights(
        **{
            name: tensor.to(job.settings.device)
            for name, tensor in checkpoint[1].items()
            if name in names
        }
    )
    store = LevelledStore(job.activations)
    # from the activations as they are training's scales follow, from those of one loudness fvu
    sae = finished_sae(job.cell, weights, JoinedStore(job.activations), job.hook)
    sae = levelled(sae, store.levels(job.hook))

    def first(hook: str) -> list["Batch"]:
        return list(_first(tuning_batches(store, hook, BATCH_ROWS, job.settings.device), tokens))

    batches, target = first(job.hook), job.cell.target_hook
    targets = None if target is None else first(target)
    measured = measure(
        sae, lambda: iter(batches), 0.0, None if targets is None else lambda: iter(targets)
    )
    fvu = None if measured is None else measured[0]["fvu"]
    return WORST if fvu is None else fvu


def _first(batches: Iterable["Batch"], tokens: int) -> Iterator["Batch"]:
    for x_nd, index in batches:
        if tokens <= 0:
            return
        yield x_nd[:tokens], index[:tokens]
        tokens -= len(x_nd)


def _drop_checkpoint_without_reports(job: CellJob, reports: Mapping[int, float]) -> None:
    """Delete a checkpoint of the stage train: reports of the checkpoints before it are missing."""
    from sae_repro.training import drop_checkpoint, load_checkpoint

    checkpoint = load_checkpoint(job.checkpoint)
    every = job.settings.checkpoint_every
    if checkpoint is not None and not set(range(every, checkpoint[0], every)) <= reports.keys():
        drop_checkpoint(job.checkpoint)


def _read(path: Path) -> tuple[dict[int, float], bool]:
    """(FVU by step, whether training ended), as `_write` wrote them; of a damaged file none."""
    if not path.is_file():
        return {}, False
    try:
        record = read_object(path)
    except StudyError:
        record = {}
    sha256 = record.pop("sha256", None)
    if sha256 != digest(record):
        print(f"tune: {path}: damaged; its SAE is trained again for it", file=sys.stderr)
        path.unlink()
        return {}, False
    return {int(step): fvu for step, fvu in record["fvu"].items()}, record["ended"]


def _write(path: Path, reports: Mapping[int, float], *, ended: bool) -> None:
    record = {"fvu": {str(s): fvu for s, fvu in reports.items()}, "ended": ended}
    write_json(path, {**record, "sha256": digest(record)})
