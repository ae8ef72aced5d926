"""Superseded runs, duplicates, and the runs of a commit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.errors import StudyError
from sae_repro.track.apart import apart
from sae_repro.track.origin import Origin
from sae_repro.track.projection import identity
from sae_repro.track.server import MINE, connect, find_experiment, search, server_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SUPERSEDED = "sae_repro.superseded"


def without_duplicates(client: "MlflowClient", same: "Sequence[Run]") -> "tuple[Run | None, int]":
    """The one to keep of runs that are the same, and how many others were deleted.

    A server that answers after the client's timeout creates a run, and another one at the retry.
    """
    if not same:
        return None, 0
    survivor, *duplicates = sorted(
        same,
        key=lambda r: ("sae_repro.content" not in r.data.tags, r.info.start_time, r.info.run_id),
    )
    for run in duplicates:
        client.delete_run(run.info.run_id)
    return survivor, len(duplicates)


def settle(client: "MlflowClient", runs: "Sequence[Run]", current: str | None) -> None:
    """Mark all runs of one cell but the `current` one as superseded, in a tag and in the name."""
    for run in runs:
        tags = run.data.tags
        history = run.info.run_id != current
        if tags.get(SUPERSEDED) == str(history).lower():
            continue
        old = f" (superseded, {tags.get('sae_repro.key', '')[:8]})"
        name = run.info.run_name.removesuffix(old)
        # the tag last: it marks both as done
        client.update_run(run.info.run_id, name=name + old if history else name)
        client.set_tag(run.info.run_id, SUPERSEDED, str(history).lower())


def prune(study: Path, root: Path, experiment: str) -> int:
    """Delete the study's superseded runs, never a copy made by others; how many.

    MLflow keeps deleted runs until `mlflow gc`.
    """
    with server_errors(root):
        return apart(_prune, study, root, experiment)


def _prune(study: Path, root: Path, experiment: str) -> int:
    with server_errors(root):
        client = connect(root)
        tags = {"sae_repro.study": Origin(study).study, SUPERSEDED: "true"}
        superseded = [
            run
            for run in search(client, find_experiment(client, experiment), tags)
            if MINE in run.data.tags
        ]
        for run in superseded:
            client.delete_run(run.info.run_id)
    return len(superseded)


def of_commit(study: Path, root: Path, experiment: str, commit: str) -> list[tuple[str, str]]:
    """(name, run id) of what `commit` recorded, by its artifacts/track; no id if it isn't there.

    StudyError where DVC's cache and remote lack the commit's artifacts/track.
    """
    entries = _recorded(study, root, commit)
    with server_errors(root):
        ids = apart(_ids, study, root, experiment)
    return [
        (e["name"], ids.get((e["kind"], e["name"], e["key"], identity(e)), "")) for e in entries
    ]


def _ids(study: Path, root: Path, experiment: str) -> dict[tuple[str, ...], str]:
    """The study's runs by kind, cell, key and result."""
    names = ("kind", "cell", "key", "result")
    with server_errors(root):
        client = connect(root)
        experiment_id = find_experiment(client, experiment)
        return {
            tuple(run.data.tags.get(f"sae_repro.{name}", "") for name in names): run.info.run_id
            for run in search(client, experiment_id, {"sae_repro.study": Origin(study).study})
        }


def _recorded(study: Path, root: Path, commit: str) -> list[dict[str, Any]]:
    import dvc.api

    path = (study / "artifacts" / "track" / "runs.jsonl").resolve()
    try:
        text = dvc.api.read(
            path.relative_to(root.resolve()).as_posix(), repo=str(root.resolve()), rev=commit
        )
    except Exception as error:  # git's, DVC's and its remotes' are of many kinds
        raise StudyError(
            f"commit {commit}: its artifacts/track can't be read ({' '.join(str(error).split())}); "
            "`dvc pull` brings it in a checkout of that commit"
        ) from None
    return [json.loads(line) for line in text.splitlines()]
