"""Runs of a tuning study: its trials below one parent, in an experiment of their own.

Nested runs collapse in the UI's comparison of cells, so they are kept apart from these.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from sae_repro.files import digest
from sae_repro.track.apart import apart
from sae_repro.track.mlflow_sync import RETRY, Sender, Sent
from sae_repro.track.projection import flat
from sae_repro.track.server import connect, make_experiment, server_errors

PARENT = "mlflow.parentRunId"


class TrialEntry(TypedDict):
    """A finished trial of an Optuna study, as plain data."""

    number: int
    status: str
    """ok, failed or pruned."""
    params: Mapping[str, Any]
    values: Mapping[str, float]
    """Objectives and other metrics by name; empty for a trial without them."""
    cell_key: str
    """The key of the cell that was trained for it, as in its train.json."""


def send_trials(
    name: str, trials: Sequence[TrialEntry], study: Path, root: Path, experiment: str
) -> Sent:
    """Send the missing trials of the tuning study `name` to the experiment `<experiment>-tuning`.

    One parent run, and one run below it per trial. Safe to repeat with more trials; StudyError
    where the server can't be reached.
    """
    with server_errors(root, RETRY):
        return apart(_send, name, trials, study, root, experiment)


def _send(
    name: str, trials: Sequence[TrialEntry], study: Path, root: Path, experiment: str
) -> Sent:
    with server_errors(root, RETRY):
        client = connect(root)
        sender = Sender(client, make_experiment(client, f"{experiment}-tuning", root), study)
        parent = sender.send(_entry("tuning", name, digest(name), "ok"))
        for trial in trials:
            sender.send(_trial(name, trial), {PARENT: parent})
    return sender.sent


def _trial(name: str, trial: TrialEntry) -> dict[str, Any]:
    return _entry(
        "trial",
        f"{name}/{trial['number']:04d}",
        trial["cell_key"],
        trial["status"],
        params={"trial": str(trial["number"]), **dict(flat(trial["params"]))},
        metrics=[(objective, 0, float(value)) for objective, value in trial["values"].items()],
    )


def _entry(kind: str, name: str, key: str, status: str, **more: Any) -> dict[str, Any]:
    """A run as `projection` describes it."""
    return {"name": name, "kind": kind, "key": key, "status": status, "params": {}, "metrics": [],
            "artifacts": {}, **more}  # fmt: skip
