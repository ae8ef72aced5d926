"""The study on disk: an Optuna journal that holds finished trials, by number, and nothing else.

It is kept apart from DVC's outs, which are deleted before a re-run. A trial enters it whole, in one
append, once all trials before it are there; trials that an interruption lost are proposed again,
and are the same. `sae-repro tune-ui` shows it, and so does `optuna-dashboard tune/journal.log`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from sae_repro.errors import StudyError, one_line
from sae_repro.files import canonical_json, digest
from sae_repro.params import Tune
from sae_repro.tune.journal_lock import JournalLock
from sae_repro.tune.proposals import Proposal, directions, quiet
from sae_repro.tune.records import SHA256, trial_sha256

IDENTITY = "sae_repro.identity"
REBUILT = "sae_repro.rebuilt"
"""Marks a journal that was rebuilt from trials.csv, to be looked at."""


def study_name(identity: Mapping[str, Any]) -> str:
    """The study's name: a hash of all that decides its trials, their number apart."""
    return f"tune-{digest(identity)[:16]}"


def name_metrics(study: optuna.Study, tune: Tune) -> None:
    """Give the study's values their names, by which dashboards call them."""
    names = ["weighted sum"] if tune.weights else list(tune.objectives)
    if study.metric_names != names:
        study.set_metric_names(names)


class Journal:
    """The finished trials of one study in the file `path`; StudyError if it is another study's."""

    def __init__(self, path: Path, tune: Tune, identity: Mapping[str, Any]) -> None:
        self.path, self.name = path, study_name(identity)
        path.parent.mkdir(parents=True, exist_ok=True)
        _repair(path)
        try:
            with quiet():
                storage = JournalStorage(JournalFileBackend(str(path), JournalLock(path)))
                _refuse_another(path, storage, identity)
                self._study = optuna.create_study(
                    study_name=self.name,
                    storage=storage,
                    directions=directions(tune),
                    load_if_exists=True,
                )
                if IDENTITY not in self._study.user_attrs:  # killed between the two, or new
                    self._study.set_user_attr(IDENTITY, canonical_json(identity))
                name_metrics(self._study, tune)
                _check_trials(self.trials())
        except (StudyError, OSError):
            raise
        except Exception as error:  # of a damaged file Optuna raises whatever it happens to hit
            reason = one_line(str(error)) or type(error).__name__
            raise StudyError(f"{path}: damaged ({reason}); {_ANEW}") from None

    def trials(self, first: int | None = None) -> list[FrozenTrial]:
        """The finished trials by number; only the `first` so many."""
        return self._study.get_trials(deepcopy=False)[:first]

    def append(self, trial: FrozenTrial) -> None:
        """Append a finished trial; its number is the count of those before it."""
        with quiet():
            self._study.add_trial(trial)

    def check(self, proposal: Proposal) -> None:
        """StudyError if the recorded trial of this number has other parameters."""
        recorded = self.trials()[proposal.number]
        if recorded.params != proposal.params:
            raise StudyError(
                f"{self.path}: trial {proposal.number} has {recorded.params}, but this study "
                f"proposes {proposal.params} (written by another machine or version?); {_ANEW}"
            )


_ANEW = (
    "move the file away to begin a new study: cells that are trained stay in the store and are not "
    "trained again"
)


def _check_trials(trials: Sequence[FrozenTrial]) -> None:
    """ValueError for a trial that is not as it was appended.

    Trials of earlier versions, which come first, have no hash.
    """
    hashed = False
    for trial in trials:
        sha256 = trial.system_attrs.get(SHA256)
        if (hashed or sha256 is not None) and sha256 != trial_sha256(trial):
            raise ValueError(f"trial {trial.number} is not as it was recorded")
        hashed |= sha256 is not None


def _repair(path: Path) -> None:
    """Cut off an unfinished last line, left by a killed writer."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        text = file.read()
        file.truncate(text.rfind(b"\n") + 1)


def _refuse_another(path: Path, storage: JournalStorage, identity: Mapping[str, Any]) -> None:
    for summary in optuna.get_all_study_summaries(storage):
        if REBUILT in summary.user_attrs:
            raise StudyError(
                f"{path}: rebuilt from trials.csv to be looked at, without what the sampler noted; "
                f"{_ANEW}"
            )
        if summary.study_name == study_name(identity):
            continue
        theirs = json.loads(summary.user_attrs.get(IDENTITY, "{}"))
        lines = list(_differences(theirs, json.loads(canonical_json(identity))))
        raise StudyError(
            f"{path}: holds the trials of another study, which differs in:\n"
            + "".join(f"  {line}\n" for line in lines)
            + f"{_ANEW[0].upper()}{_ANEW[1:]}."
        )


def _differences(theirs: Any, ours: Any, key: str = "") -> list[str]:
    """`key: there … , here …` for each value that differs."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return [
            line
            for name in sorted(theirs.keys() | ours.keys())
            if theirs.get(name) != ours.get(name)
            for line in _differences(
                theirs.get(name), ours.get(name), f"{key}.{name}" if key else name
            )
        ]
    return [f"{key}: {_printed(theirs)} there, {_printed(ours)} here"]


def _printed(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= 60 else text[:57] + "…"
