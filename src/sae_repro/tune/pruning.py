"""Hyperband that does not touch training: it looks at checkpoints, from outside.

A cell's looks are its held-out FVU at each checkpoint, a function of the cell alone. Whether a look
stops a trial depends on it and on earlier batches, never on companions: so the same trials are
stopped whoever ends first, and wherever a worker was killed.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, create_trial

from sae_repro.cellstore import CellStore
from sae_repro.files import digest, read_json, write_json
from sae_repro.params import Tune
from sae_repro.readers.activations import ActivationStore
from sae_repro.train.job import CellJob, make_into
from sae_repro.tune.asking import Asked, quiet, study_of

if TYPE_CHECKING:
    from sae_repro.evaluate.held_out import Batch

LOOK_ROWS = 4096  # activations at once
WORST = 1e9  # stands for an FVU that is no number


class _Stop(Exception):  # noqa: N818 - no error: the trial is stopped early
    """Leaves the trainer from its progress report."""


@dataclass(frozen=True)
class Looks:
    """A trial as the pruner saw it."""

    reports: dict[int, float]
    pruned: bool
    notes: dict[str, Any]
    """What the pruner wrote down: the value at each rung."""


@dataclass(frozen=True)
class Rungs:
    """Where one trial may be stopped, in the light of all earlier batches; pickles to a worker."""

    tune: Tune
    name: str
    told: tuple[FrozenTrial, ...]
    asked: Asked
    steps: int
    folder: Path
    """Where looks are kept between runs, a file per cell."""

    def train(self, job: CellJob, progress: Callable[[int], None]) -> Looks:
        """Train `job` into its store until it ends or a look stops it."""
        path = self._path(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            known = self.replay(job)
            ended = _read(path)[1] and CellStore(job.store).find(job.key)
            if known.pruned or ended:
                return known
            _drop_checkpoint_without_looks(job, known.reports)
            try:
                self._train(job, progress)
            except _Stop:
                shutil.rmtree(job.checkpoint, ignore_errors=True)
        return self.replay(job)

    def replay(self, job: CellJob) -> Looks:
        """The pruner's verdict on the looks that are there, as if they came just now."""
        assert self.tune.pruner is not None
        pruner = optuna.pruners.HyperbandPruner(
            min_resource=self.tune.pruner.min_steps,
            max_resource=self.steps,
            reduction_factor=self.tune.pruner.reduction_factor,
        )
        reports, _ = _read(self._path(job))
        with quiet():
            study, trial = self._trial(pruner)
            seen: dict[int, float] = {}
            pruned = False
            for step, fvu in sorted(reports.items()):
                trial.report(fvu, step)
                seen[step] = fvu
                pruned = trial.should_prune()
                if pruned:
                    break
            notes = study.get_trials(deepcopy=False)[self.asked.number].system_attrs
        return Looks(seen, pruned, dict(notes))

    def _trial(self, pruner: optuna.pruners.BasePruner) -> tuple[optuna.Study, optuna.Trial]:
        """The trial under its number, which decides its bracket, among the earlier batches."""
        study = study_of(self.tune, self.name, self.told, pruner)
        running = optuna.trial.TrialState.RUNNING
        study.add_trials(
            [create_trial(state=running)] * (self.asked.number - len(self.told))
            + [
                create_trial(
                    state=running,
                    params=self.asked.params,
                    distributions=self.asked.distributions,
                )
            ]
        )
        frozen = study.get_trials(deepcopy=False)[self.asked.number]
        return study, optuna.Trial(study, frozen._trial_id)

    def _train(self, job: CellJob, progress: Callable[[int], None]) -> None:
        def watched(done: int) -> None:
            progress(done)
            if self._looked(job, done) and self.replay(job).pruned:
                raise _Stop

        with CellStore(job.store).making(job.key) as folder:
            if folder is not None:
                make_into(job, folder, watched)
        if folder is None:
            # the stage train made the cell, and nobody looked: trained again, for its looks
            with tempfile.TemporaryDirectory() as scratch:
                make_into(job, Path(scratch), watched)
        _write(self._path(job), _read(self._path(job))[0], ended=True)

    def _looked(self, job: CellJob, done: int) -> bool:
        """Look at the last checkpoint before step `done`; False where there is none, or it was."""
        assert self.tune.pruner is not None
        step = last_checkpoint(job, done)
        reports, _ = _read(self._path(job))
        if not step or step in reports:
            return False
        reports[step] = held_out_fvu(job, self.tune.pruner.tokens)
        _write(self._path(job), reports, ended=False)
        return True

    def _path(self, job: CellJob) -> Path:
        assert self.tune.pruner is not None
        return self.folder / f"{digest([job.key, self.tune.pruner.tokens])}.json"


def last_checkpoint(job: CellJob, done: int) -> int:
    """The step of the last checkpoint when step number `done` − 1 has just been logged; or 0."""
    return (done - 1) // job.settings.checkpoint_every * job.settings.checkpoint_every


def held_out_fvu(job: CellJob, tokens: int) -> float:
    """FVU of a cell's last checkpoint on the first `tokens` validation activations."""
    from sae_repro.autoencoders import Weights
    from sae_repro.evaluate.held_out import HeldOut, validation_batches
    from sae_repro.evaluate.reconstruction import accumulate, summarise
    from sae_repro.training import finished_sae, load_checkpoint

    found = load_checkpoint(job.checkpoint)
    assert found is not None
    names = {field.name for field in fields(Weights)}
    weights = Weights(
        **{
            name: tensor.to(job.settings.device)
            for name, tensor in found[1].items()
            if name in names
        }
    )
    store = ActivationStore(job.activations)
    sae = finished_sae(job.cell, weights, store, job.hook)
    validation = validation_batches(store, job.hook, LOOK_ROWS, job.settings.device)
    batches = list(_first(validation, tokens))
    totals = accumulate(sae, batches, HeldOut.of(lambda: batches, sae.d_in))
    fvu = summarise(totals, sae.d_in, 0.0)["fvu"]
    if fvu is None or not isfinite(fvu):
        return WORST
    return fvu


def _first(batches: Iterable["Batch"], tokens: int) -> Iterator["Batch"]:
    for x_nd, index in batches:
        if tokens <= 0:
            return
        yield x_nd[:tokens], index[:tokens]
        tokens -= len(x_nd)


def _drop_checkpoint_without_looks(job: CellJob, reports: Mapping[int, float]) -> None:
    """A checkpoint that the stage train left is of no use: nobody looked at those before it."""
    from sae_repro.training import load_checkpoint

    found = load_checkpoint(job.checkpoint)
    every = job.settings.checkpoint_every
    if found is not None and not set(range(every, found[0], every)) <= reports.keys():
        shutil.rmtree(job.checkpoint)


def _read(path: Path) -> tuple[dict[int, float], bool]:
    """(FVU by step, whether training ended), as `_write` wrote them."""
    if not path.is_file():
        return {}, False
    said = read_json(path)
    return {int(step): fvu for step, fvu in said["fvu"].items()}, said["ended"]


def _write(path: Path, reports: Mapping[int, float], *, ended: bool) -> None:
    write_json(path, {"fvu": {str(s): fvu for s, fvu in reports.items()}, "ended": ended})
