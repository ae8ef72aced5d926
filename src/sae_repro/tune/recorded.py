"""A finished study as git has it: the trials of tune/trials.csv as an Optuna journal.

The journal of a search, tune/journal.log, is no part of the repository, so a clone has none. All of
a trial is in trials.csv but for its times and what sampler and pruner noted for themselves; the
space in which it was proposed stands in tune/dvc.lock, whatever tune/params.yaml says by now.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial, FrozenTrial

from sae_repro.errors import StudyError
from sae_repro.files import digest, replacing, sha256_file
from sae_repro.params import Tune, check_section, read_yaml
from sae_repro.provenance import check_recorded, read_lock
from sae_repro.stage import STATE
from sae_repro.tune.optuna_journal import REBUILT, name_metrics
from sae_repro.tune.proposals import directions, quiet
from sae_repro.tune.records import judged, trial_of
from sae_repro.tune.results import WEIGHTED, Trial, trials
from sae_repro.tune.space import FOLDER, at_part, completed, part_in, read_params, suggest, within


@dataclass(frozen=True)
class Recorded:
    """The study that trials.csv, best.yaml and dvc.lock record."""

    folder: Path
    """The folder that holds params.yaml."""
    name: str
    tune: Tune

    @classmethod
    def of(cls, folder: Path) -> "Recorded":
        """The recorded study of a folder; StudyError without one."""
        path = FOLDER / "best.yaml"
        check_recorded(folder, "tune", path, within=FOLDER)
        best = read_yaml(folder / path)
        if not isinstance(best.get("study"), str):
            raise StudyError(
                f"{folder / path}: names no study; take all files of tune/ from one commit"
            )
        return cls(folder, best["study"], _space(folder))

    def trials(self) -> list[FrozenTrial]:
        """The trials by number; StudyError where the space cannot have proposed one."""
        return [self._trial(row) for row in trials(self.folder)]

    def journal(self) -> Path:
        """A journal of the trials below .sae-repro, made unless it is there."""
        source = sha256_file(self.folder / FOLDER / "trials.csv")
        name = digest([source, self.name, self.tune.model_dump(mode="json")])[:16]
        path = self.folder / STATE / f"tune-{name}.log"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            finished = self.trials()
            with replacing(path) as temporary:
                self._write(temporary, finished)
        return path

    def _trial(self, row: Trial) -> FrozenTrial:
        place = f"{self.folder / FOLDER / 'trials.csv'}: trial {row.number}"
        try:
            params = read_params(self.tune, row.params)
        except (StudyError, ValueError) as error:
            raise StudyError(f"{place}: {error}; {_OTHER_SPACE}") from None
        part = part_in(self.tune, params)
        own = {k: v for k, v in params.items() if part is None or k not in part.params}
        proposed = FixedTrial(own)
        choices = suggest(self.tune if part is None else within(self.tune, part), proposed)
        distributions = proposed.distributions
        if part is not None:
            distributions = at_part(self.tune, part, distributions)
        if choices != dict(row.choices):
            raise StudyError(f"{place}: is the cell {row.choices}, not {choices}; {_OTHER_SPACE}")
        record = judged(
            self.tune,
            number=row.number,
            status=row.status,
            recipe=row.recipe,
            choices=choices,
            params=params,
            metrics={name: v for name, v in row.metrics.items() if name != WEIGHTED},
            key=row.key,
            evaluation=row.evaluation,
            reason=row.reason,
            reports=dict(row.reports),
        )
        return trial_of(self.tune, record, distributions, {})

    def _write(self, path: Path, finished: list[FrozenTrial]) -> None:
        with quiet():
            study = optuna.create_study(
                study_name=self.name,
                storage=JournalStorage(JournalFileBackend(str(path))),
                directions=directions(self.tune),
            )
            study.set_user_attr(REBUILT, "from tune/trials.csv; times are those of rebuilding it")
            name_metrics(study, self.tune)
            study.add_trials(finished)


PARAMS = "params.yaml"
_OTHER_SPACE = (
    "tune/params.yaml, or tune/dvc.lock, has another space: take all files of tune/ from one commit"
)


def _space(folder: Path) -> Tune:
    """The space of tune/dvc.lock, or of the params files where nothing is locked; recipes whole."""
    lock, params = folder / FOLDER / "dvc.lock", folder / FOLDER / "params.yaml"
    source = params
    raw: Mapping[str, Any] = {}
    study: Mapping[str, Any] = {}
    if lock.is_file():
        source, locked = lock, read_lock(folder / FOLDER).get("tune", {}).get("params")
        if not isinstance(locked, dict):
            raise StudyError(
                f"{lock}: no parameters of the stage tune; `git checkout {lock}` brings back the "
                "committed file"
            )
        raw, study = (
            locked.get(name, {}) for name in ((FOLDER / "params.yaml").as_posix(), PARAMS)
        )
    if "tune" not in raw or "recipes" not in study:
        source, raw, study = params, read_yaml(params), read_yaml(folder / PARAMS)
    tune = check_section(Tune, raw["tune"], source=str(source), within="tune")
    try:
        return completed(tune, study["recipes"])
    except ValueError as error:
        raise StudyError(f"{source}: tune.recipes.{error}; {_OTHER_SPACE}") from None
