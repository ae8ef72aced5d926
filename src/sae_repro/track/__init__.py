"""Stage `track`: the results as MLflow runs, one per cell. It never fails the pipeline.

artifacts/track/runs.jsonl holds the runs, the same with and without a server. They are sent to
MLFLOW_TRACKING_URI, or to mlflow.db in the repository's root.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.contents import check, check_if_sealed, sealed_folder
from sae_repro.errors import StudyError
from sae_repro.files import write_text
from sae_repro.params import Cell, Track, read_cells
from sae_repro.stage import StageContext

if TYPE_CHECKING:
    from sae_repro.track.mlflow_sync import Sent


def run(context: StageContext) -> None:
    """Write artifacts/track/runs.jsonl and send it; an unreachable server is a one-line warning."""
    from sae_repro.files import canonical_json
    from sae_repro.track.projection import projection

    for stage in ("train", "evaluate"):
        check(context.artifacts(stage))
    settings = context.section(Track, "track")
    cells = read_cells(context.value("recipes"), context.value("cells"))
    runs = projection(cells, Path(), weights=settings.weights)
    with sealed_folder(context.artifacts("track")) as folder:
        lines = "".join(canonical_json(run) + "\n" for run in runs)
        write_text(folder / "runs.jsonl", lines)
    try:
        _send(runs, cells, Path(), context.root, settings.experiment)
    except StudyError as error:
        print(f"track: warning: {error}", file=sys.stderr)


def send(study: Path, root: Path, cells: Mapping[str, Cell], settings: Track) -> "Sent":
    """Send the missing results of a study; StudyError where the server can't be reached."""
    from sae_repro.track.projection import projection

    for stage in ("train", "evaluate"):
        check_if_sealed(study / "artifacts" / stage)
    runs = projection(cells, study, weights=settings.weights)
    return _send(runs, cells, study, root, settings.experiment)


def _send(
    runs: Sequence[Mapping[str, Any]],
    cells: Mapping[str, Cell],
    study: Path,
    root: Path,
    experiment: str,
) -> "Sent":
    from sae_repro.track.apart import apart
    from sae_repro.track.mlflow_sync import RETRY, sync
    from sae_repro.track.projection import with_spent
    from sae_repro.track.server import server_errors

    with server_errors(root, RETRY):
        return apart(sync, with_spent(runs, cells, study), study, root, experiment)
