"""The command `track`: send results and trials, delete superseded runs, list a commit's runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sae_repro.params import load, read_yaml

if TYPE_CHECKING:
    from sae_repro.track.mlflow_sync import Sent
    from sae_repro.track.tuning import TrialEntry


def track(study: Path, *, prune: bool) -> Iterator[str]:
    """Send a study's missing results to MLflow, its tuning trials included; lines to show."""
    from sae_repro.track import send
    from sae_repro.track.history import prune as delete_superseded

    loaded = load(study / "params.yaml")
    root, experiment = study / loaded.root, loaded.track.experiment
    yield _printed(send(study, root, loaded.cells, loaded.track))
    if (study / "tune" / "trials.csv").is_file():
        yield f"trials: {_printed(_send_trials(study, root, experiment))}"
    if prune:
        yield f"superseded runs deleted: {delete_superseded(study, root, experiment)}"


def runs_of(study: Path, commit: str) -> Iterator[str]:
    """A line for each run that `commit` recorded: its id, its name."""
    from sae_repro.track.history import of_commit

    loaded = load(study / "params.yaml")
    for name, run_id in of_commit(study, study / loaded.root, loaded.track.experiment, commit):
        yield f"{run_id or 'not sent'}\t{name}"


def _send_trials(study: Path, root: Path, experiment: str) -> "Sent":
    from sae_repro.track.tuning import send_trials
    from sae_repro.tune.results import trials

    entries: list[TrialEntry] = [
        {"number": t.number, "status": t.status, "params": t.params, "values": t.metrics,
         "cell_key": t.key}
        for t in trials(study)
    ]  # fmt: skip
    name = read_yaml(study / "tune" / "best.yaml")["study"]
    return send_trials(name, entries, study, root, experiment)


def _printed(sent: "Sent") -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in vars(sent).items())
