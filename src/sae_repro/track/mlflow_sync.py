"""Synchronisation of runs to MLflow: idempotent, only missing data is sent.

A metric row is unique in MLflow by (name, value, timestamp, step). Timestamps here are the run's
start plus `step` milliseconds, so that sending a row twice leaves one; the wall clock of training
is no part of a result. Nor can a row be deleted: a cell that is evaluated anew gets a new run, and
the old one is marked as superseded.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sae_repro.files import digest
from sae_repro.track.history import settle, without_duplicates
from sae_repro.track.origin import NOTE, Origin
from sae_repro.track.projection import COLOUR, CURVE, identity
from sae_repro.track.server import MINE, connect, make_experiment, search, server_errors
from sae_repro.track.unfinished import LIVE, PLACE, continues, is_from, is_unfinished

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RETRY = "retry later: `sae-repro track` sends the missing runs"
METRICS_PER_BATCH, PARAMS_PER_BATCH, TAGS_PER_BATCH = 1000, 100, 100
FILES_PER_BATCH = 10
"""Files that an interrupted sync sends again, at most."""
STATUS = {"ok": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}
DEVICE = "device"
"""The tag of a run whose training was measured: on which processor or GPU."""
T = TypeVar("T")


@dataclass
class Sent:
    """Counts of a sync."""

    runs_created: int = 0
    runs_unchanged: int = 0
    runs_completed: int = 0
    duplicates_removed: int = 0
    metric_rows: int = 0
    artifacts: int = 0


def sync(runs: Sequence[Mapping[str, Any]], study: Path, root: Path, experiment: str) -> Sent:
    """Send the part of `runs` that the server lacks; StudyError where it can't be reached.

    A run is found again by its key and the study's name. Interrupted anywhere, the next sync
    completes it. Runs of cells that are not among `runs` are marked as superseded.
    """
    from tqdm import tqdm

    with server_errors(root, RETRY):
        client = connect(root)
        sender = Sender(client, make_experiment(client, experiment, root), study)
        for run in tqdm(runs, desc="track", unit="run", disable=None):
            sender.send(run)
        sender.settle_rest()
    return sender.sent


class Sender:
    """Sends runs of one study to one experiment.

    Input: entries as `projection` makes them. Each is found again, completed or made.
    """

    def __init__(self, client: "MlflowClient", experiment_id: str, study: Path) -> None:
        self.sent = Sent()
        self._client, self._experiment_id = client, experiment_id
        self._folder, self._origin = study, Origin(study)
        self._known: dict[tuple[str, str], list[Run]] = defaultdict(list)
        for run in search(client, experiment_id, {"sae_repro.study": self._origin.study}):
            kind, cell = (run.data.tags.get(f"sae_repro.{name}", "") for name in ("kind", "cell"))
            self._known[kind, cell].append(run)

    def send(self, run: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> str:
        """The id of the run in MLflow, complete and current; `tags` are more for a new one."""
        known = self._known.pop((run["kind"], run["name"]), [])
        recorded = [r for r in known if not is_unfinished(r)]
        result = identity(run)
        content = digest([result, run["artifacts"]])
        own_tags = {"sae_repro.study": self._origin.study, "sae_repro.kind": run["kind"],
                "sae_repro.cell": run["name"], "sae_repro.key": run["key"],
                "sae_repro.result": result, "sae_repro.superseded": "false"}  # fmt: skip
        same = [r for r in recorded if self._is(r, run["key"], result)]
        current, removed = without_duplicates(self._client, same)
        self.sent.duplicates_removed += removed
        unfinished = self._unfinished(known)
        all_tags = {**(tags or {}), **run.get("labels", {}), **own_tags}
        taken = self._take_over(unfinished if current is None else [], run, all_tags)
        self._delete([r for r in unfinished if r is not taken])
        current = current or taken
        if current is None:
            current = self._client.create_run(
                self._experiment_id, tags=all_tags, run_name=self._name(run)
            )
            self.sent.runs_created += 1
        if current.data.tags.get("sae_repro.content") == content:
            self.sent.runs_unchanged += 1
        else:
            self._complete(current, run, content)
            self.sent.runs_completed += 1
        self._link(current, run)
        self._label(current, run)
        self._account(current, run)
        history = [other for other in recorded if other not in same]
        settle(self._client, [*history, current], current.info.run_id)
        return str(current.info.run_id)

    def settle_rest(self) -> None:
        """Mark the runs of cells that were not sent as superseded; delete their unfinished ones."""
        for (kind, _), runs in self._known.items():
            if kind in ("cell", "report"):
                settle(self._client, [r for r in runs if not is_unfinished(r)], None)
                self._delete(self._unfinished(runs))

    def _take_over(
        self, unfinished: "Sequence[Run]", run: Mapping[str, Any], tags: Mapping[str, str]
    ) -> "Run | None":
        """The unfinished run of this very training, which gets its result now; None without one."""
        from mlflow.entities import RunTag

        rows = [row for row in run["metrics"] if row[0].startswith(CURVE)]
        taken = next((r for r in unfinished if continues(r, run["key"], rows)), None)
        if taken is not None:
            for batch in _chunks([RunTag(k, v) for k, v in tags.items()], TAGS_PER_BATCH):
                self._client.log_batch(taken.info.run_id, tags=batch)
        return taken

    def _unfinished(self, runs: "Sequence[Run]") -> "list[Run]":
        """Those that this folder began: on a shared server, others may train the same cell."""
        return [r for r in runs if is_unfinished(r) and is_from(r, self._folder)]

    def _delete(self, unfinished: "Sequence[Run]") -> None:
        for run in unfinished:
            self._client.delete_run(run.info.run_id)

    def _is(self, run: "Run", key: str, result: str) -> bool:
        tags = run.data.tags
        return (tags.get("sae_repro.key"), tags.get("sae_repro.result")) == (key, result)

    def _name(self, run: Mapping[str, Any]) -> str:
        study = self._origin.study
        return run["name"] if study == "root" else f"{study}/{run['name']}"

    def _complete(self, current: "Run", run: Mapping[str, Any], content: str) -> None:
        run_id, start = current.info.run_id, current.info.start_time
        # complete runs have the values of `result` already
        if "sae_repro.content" not in current.data.tags:
            self._log(run_id, start, run)
        self._upload(current, run)
        self._client.set_terminated(run_id, STATUS[run["status"]], end_time=start)
        for tag in (LIVE, PLACE):
            if tag in current.data.tags:
                self._client.delete_tag(run_id, tag)
        # last of all: only a complete run carries it
        self._client.set_tag(run_id, "sae_repro.content", content)

    def _log(self, run_id: str, start: int, run: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        log = self._client.log_batch
        for params in _chunks(list(run["params"].items()), PARAMS_PER_BATCH):
            log(run_id, params=[Param(k, v) for k, v in params])
        for tags in _chunks(list({**self._origin.tags, MINE: run_id}.items()), TAGS_PER_BATCH):
            log(run_id, tags=[RunTag(k, v) for k, v in tags])
        for rows in _chunks(run["metrics"], METRICS_PER_BATCH):
            log(run_id, [Metric(name, value, start + step, step) for name, step, value in rows])
            self.sent.metric_rows += len(rows)
        datasets = self._origin.datasets(run)
        if datasets:
            self._client.log_inputs(run_id, datasets)

    def _upload(self, current: "Run", run: Mapping[str, Any]) -> None:
        """Send the artifacts whose hash the run does not have yet."""
        from mlflow.entities import RunTag

        missing = {
            path: RunTag(name, sha256)
            for path, sha256 in run["artifacts"].items()
            if current.data.tags.get(name := "sae_repro.sent." + path.replace("/", ".")) != sha256
        }
        # their tags together: a call is a transaction, which takes as long as a small file
        for paths in _chunks(list(missing), FILES_PER_BATCH):
            for path in paths:
                folder = str(Path(path).parent) if run["kind"] == "report" else None
                self._client.log_artifact(current.info.run_id, str(self._folder / path), folder)
            self._client.log_batch(current.info.run_id, tags=[missing[path] for path in paths])
            self.sent.artifacts += len(paths)

    def _link(self, current: "Run", run: Mapping[str, Any]) -> None:
        """Update the run's DVC hashes and, only with them, its description."""
        from mlflow.entities import RunTag

        tags = self._origin.dvc_tags(run)
        if NOTE in current.data.tags and tags.items() <= current.data.tags.items():
            return
        # the run's own commit: the checkout may be at another one by now
        commit = {**self._origin.tags, **current.data.tags}.get("mlflow.source.git.commit", "")
        tags[NOTE] = self._origin.note(run, commit)
        for batch in _chunks(list(tags.items()), TAGS_PER_BATCH):
            self._client.log_batch(current.info.run_id, tags=[RunTag(k, v) for k, v in batch])

    def _label(self, current: "Run", run: Mapping[str, Any]) -> None:
        """Bring the run's labels up to date; a colour that somebody chose in the page stays."""
        from mlflow.entities import RunTag

        present = current.data.tags
        missing = {
            name: value for name, value in run.get("labels", {}).items()
            if present.get(name) != value and not (name == COLOUR and name in present)
        }  # fmt: skip
        if missing:
            tags = [RunTag(name, value) for name, value in missing.items()]
            self._client.log_batch(current.info.run_id, tags=tags)

    def _account(self, current: "Run", run: Mapping[str, Any]) -> None:
        """Send what the training took, unless the run has it; the first that was measured stays."""
        from mlflow.entities import Metric, RunTag

        if "spent" not in run or DEVICE in current.data.tags:
            return
        start = current.info.start_time
        rows = [Metric(name, value, start + step, step) for name, step, value in run["spent"]]
        self._client.log_batch(current.info.run_id, rows, tags=[RunTag(DEVICE, run["device"])])
        self.sent.metric_rows += len(rows)


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
