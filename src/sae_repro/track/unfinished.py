"""Runs of cells that are still being trained: they have a curve, and no result."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sae_repro.files import digest
from sae_repro.track.projection import Row
from sae_repro.track.server import search

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LIVE = "sae_repro.live"
"""The tag with the number of rows that an unfinished run was given, and their hash."""


PLACE = "sae_repro.place"
"""The tag with the hash of the machine and the folder in which the cell is trained."""


def place_of(folder: Path) -> str:
    """The value of the tag for a study in `folder` on this machine."""
    return digest([platform.node(), folder.resolve().as_posix()])[:16]


def is_from(run: "Run", folder: Path) -> bool:
    """Whether the unfinished run was made in `folder`; those of others may be in training yet."""
    return run.data.tags.get(PLACE) == place_of(folder)


def is_unfinished(run: "Run") -> bool:
    """Whether the run awaits the result of its cell."""
    return LIVE in run.data.tags and "sae_repro.result" not in run.data.tags


def described(rows: Sequence[Row]) -> str:
    """The value of the tag for `rows`."""
    return f"{len(rows)} {digest([list(row) for row in rows])}"


def continues(run: "Run", key: str, rows: Sequence[Row]) -> bool:
    """Whether `rows` of the cell `key` begin with those that the unfinished run was given."""
    if run.data.tags.get("sae_repro.key") != key:
        return False
    count = int(run.data.tags[LIVE].partition(" ")[0])
    return len(rows) >= count and described(rows[:count]) == run.data.tags[LIVE]


def mine(
    client: "MlflowClient", experiment_id: str, study: str, cell: str
) -> "tuple[list[Run], list[Run]]":
    """The runs of a study's cell: with a result, and unfinished ones made in the working folder."""
    tags = {"sae_repro.study": study, "sae_repro.kind": "cell", "sae_repro.cell": cell}
    runs = list(search(client, experiment_id, tags))
    unfinished = [r for r in runs if is_unfinished(r) and is_from(r, Path())]
    return [r for r in runs if not is_unfinished(r)], unfinished


def start_run(
    client: "MlflowClient",
    experiment_id: str,
    study: str,
    cell: str,
    key: str,
    labels: Mapping[str, str],
) -> "Run":
    """A new unfinished run, without rows, of the study in the working folder."""
    tags = {**labels, "sae_repro.study": study, "sae_repro.kind": "cell", "sae_repro.cell": cell,
            "sae_repro.key": key, "sae_repro.superseded": "false", LIVE: described([]),
            PLACE: place_of(Path())}  # fmt: skip
    name = cell if study == "root" else f"{study}/{cell}"
    return client.create_run(experiment_id, tags=tags, run_name=name)
