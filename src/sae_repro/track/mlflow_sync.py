"""MLflow filled from files, as often as one likes: what is there already is not sent again.

A metric row is unique in MLflow by (name, value, timestamp, step). Timestamps here are the run's
start plus `step` milliseconds, so that sending a row twice leaves one; the wall clock of training
is no part of a result. Neither can a row be taken back there: a cell that is evaluated anew gets
a new run, and the old one says that it is superseded.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from sae_repro.errors import StudyError
from sae_repro.files import digest
from sae_repro.provenance import git_state, host, lock_hashes, versions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
# a message of MLflow can hold a whole page of HTML
MESSAGE = 240
METRICS_PER_BATCH, PARAMS_PER_BATCH, TAGS_PER_BATCH = 1000, 100, 100
T = TypeVar("T")


@dataclass
class Sent:
    """What a sync sent."""

    runs_created: int = 0
    runs_unchanged: int = 0
    runs_completed: int = 0
    metric_rows: int = 0
    artifacts: int = 0


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or a database of this checkout."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root / 'mlflow.db').resolve()}"


def redacted(text: str) -> str:
    """`text` without the user and password of any address in it, nor MLflow's own secrets."""
    secrets = {os.environ.get(name, "") for name in SECRETS}
    _, _, address = os.environ.get("MLFLOW_TRACKING_URI", "").rpartition("://")
    password = address.rpartition("@")[0].partition(":")[2]
    # an error can quote the password alone, and decoded
    for secret in sorted(secrets | {password, unquote(password)}, key=len, reverse=True):
        text = text.replace(secret, "***") if secret else text
    # up to the last @: databases take passwords with / and @ in them
    return re.sub(r"://\S*@", "://***@", text)


def sync(runs: Sequence[Mapping[str, Any]], study: Path, root: Path, experiment: str) -> Sent:
    """Send what the tracking server lacks of `runs`; StudyError where it can't be reached.

    A run is found again by its key and the study's name. Interrupted anywhere, the next sync
    completes it.
    """
    sent = Sent()
    from tqdm import tqdm

    try:
        client = _client(root)
        experiment_id = _experiment(client, experiment, root)
        common = {f"sae_repro.{name}": value for name, value in _volatile(study).items()}
        study_name = study.resolve().name if (study / "dvc.yaml").is_symlink() else "root"
        for run in tqdm(runs, desc="track", unit="run", disable=None):
            _send(client, experiment_id, run, study, study_name, common, sent)
    except Exception as error:  # whatever the server, its database or the network raise
        raise StudyError(
            f"MLflow at {redacted(tracking_uri(root))}: {_short(error)}; nothing is lost: "
            "`sae-repro track` sends what is missing"
        ) from None
    return sent


def _short(error: Exception) -> str:
    # redacted before it is cut: half an address is no longer known as one
    return redacted(" ".join(str(error).split()))[:MESSAGE] or type(error).__name__


def _client(root: Path) -> "MlflowClient":
    # read by mlflow when it is imported, or at its first request
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    from mlflow import MlflowClient

    # importing mlflow sets the levels of these: only afterwards can they be silenced
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    uri = tracking_uri(root)
    if not _is_server(uri):
        from mlflow.store.db import utils

        # ten attempts with doubling pauses are minutes for a database that isn't there
        utils.MAX_RETRY_COUNT = 2
    return MlflowClient(uri)


def _is_server(uri: str) -> bool:
    """Whether a server keeps the artifacts; a database leaves that to whoever opens it."""
    return uri.startswith(("http://", "https://", "databricks"))


def _experiment(client: "MlflowClient", name: str, root: Path) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(name, artifact_location=_artifacts(root)))


def _artifacts(root: Path) -> str | None:
    """A folder beside the database; None where a server knows the place itself."""
    uri = tracking_uri(root)
    if _is_server(uri):
        return None
    scheme, _, path = uri.partition(":///")
    folder = Path(path.partition("?")[0]).parent if scheme == "sqlite" else root
    return (folder / "mlartifacts").resolve().as_uri()


def _volatile(study: Path) -> dict[str, str]:
    """What is true of this sending, and so stands in tags and not in runs.jsonl."""
    return {**git_state(study), **host(), **{f"version.{k}": v for k, v in versions().items()}}


def _send(
    client: "MlflowClient",
    experiment_id: str,
    run: Mapping[str, Any],
    study: Path,
    study_name: str,
    common: Mapping[str, str],
    sent: Sent,
) -> None:
    result = digest([run["status"], run["params"], run["metrics"]])
    content = digest([result, run["artifacts"]])
    mine = {"sae_repro.study": study_name, "sae_repro.kind": run["kind"],
            "sae_repro.cell": run["name"]}  # fmt: skip
    tags = {**mine, "sae_repro.key": run["key"], "sae_repro.result": result}
    known = next(_search(client, experiment_id, tags), None)
    if known is not None and known.data.tags.get("sae_repro.content") == content:
        if known.data.tags.get("sae_repro.superseded") == "true":  # a choice was taken back
            _supersede(client, experiment_id, mine, known.info.run_id)
        sent.runs_unchanged += 1
        return
    if known is None:
        known = client.create_run(experiment_id, tags=tags, run_name=run["name"])
        sent.runs_created += 1
    run_id, start = known.info.run_id, known.info.start_time
    # values that arrived once are the same: `result` is theirs
    if "sae_repro.content" not in known.data.tags:
        _log(client, run_id, start, run, {**common, **_hashes(study, run)}, sent)
    _upload(client, known, run, study, sent)
    _supersede(client, experiment_id, mine, run_id)
    client.set_terminated(run_id, "FINISHED" if run["status"] == "ok" else "FAILED", end_time=start)
    # last of all: only a complete run carries it
    client.set_tag(run_id, "sae_repro.content", content)
    sent.runs_completed += 1


def _log(
    client: "MlflowClient",
    run_id: str,
    start: int,
    run: Mapping[str, Any],
    tags: Mapping[str, str],
    sent: Sent,
) -> None:
    from mlflow.entities import Metric, Param, RunTag

    for params in _chunks(list(run["params"].items()), PARAMS_PER_BATCH):
        client.log_batch(run_id, params=[Param(k, v) for k, v in params])
    for some in _chunks(list(tags.items()), TAGS_PER_BATCH):
        client.log_batch(run_id, tags=[RunTag(k, v) for k, v in some])
    for rows in _chunks(run["metrics"], METRICS_PER_BATCH):
        client.log_batch(
            run_id, metrics=[Metric(name, value, start + step, step) for name, step, value in rows]
        )
        sent.metric_rows += len(rows)


def _upload(
    client: "MlflowClient", known: "Run", run: Mapping[str, Any], study: Path, sent: Sent
) -> None:
    """Send the artifacts whose hash the run does not carry yet."""
    for path, sha256 in run["artifacts"].items():
        tag = "sae_repro.sent." + path.replace("/", ".")
        if known.data.tags.get(tag) == sha256:
            continue
        folder = str(Path(path).parent) if run["kind"] == "report" else None
        client.log_artifact(known.info.run_id, str(study / path), folder)
        client.set_tag(known.info.run_id, tag, sha256)
        sent.artifacts += 1


def _hashes(study: Path, run: Mapping[str, Any]) -> dict[str, str]:
    """dvc.lock's hashes of what the cell was made from and came to."""
    if run["kind"] != "cell":
        return {}
    cell = run["name"].partition("/")[0]  # one stage has all seeds of a cell
    train, evaluate = (lock_hashes(study, f"{stage}@{cell}") for stage in ("train", "evaluate"))
    inputs = {f"sae_repro.dvc.in.{k.replace('/', '.')}": v for k, v in train["deps"].items()}
    outs = {**train["outs"], **evaluate["outs"]}
    return {**inputs, **{f"sae_repro.dvc.out.{k.replace('/', '.')}": v for k, v in outs.items()}}


def _supersede(
    client: "MlflowClient", experiment_id: str, mine: Mapping[str, str], run_id: str
) -> None:
    """Other runs of the same cell stay, and say that they are history."""
    found = list(_search(client, experiment_id, mine))
    # the current run comes last: if this is interrupted, it still asks for the rest
    for run in sorted(found, key=lambda run: run.info.run_id == run_id):
        history = run.info.run_id != run_id
        if (run.data.tags.get("sae_repro.superseded") == "true") != history:
            client.set_tag(run.info.run_id, "sae_repro.superseded", str(history).lower())


def _search(client: "MlflowClient", experiment_id: str, tags: Mapping[str, str]) -> "Iterator[Run]":
    # MLflow's filters have no escape for a quote: such a value is compared below only
    where = " and ".join(f"tags.`{n}` = '{v}'" for n, v in tags.items() if "'" not in v)
    token = None
    while True:
        page = client.search_runs([experiment_id], where, page_token=token)
        yield from (run for run in page if tags.items() <= run.data.tags.items())
        token = page.token
        if not token:
            return


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
