"""The tracking server: its address, a client that gives up within seconds, redacted errors.

What bounds a server that is slow rather than dead is in `apart`, and `patience` its rules.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

from sae_repro.errors import StudyError
from sae_repro.track.patience import RETRIES, TIMEOUT_S, Reporting

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
MESSAGE_LENGTH = 240  # MLflow's messages can hold a whole page of HTML
MINE = "sae_repro.run_id"
"""The tag with a run's own id; in a copy of the run it is another run's."""


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or a database of this checkout."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root / 'mlflow.db').resolve()}"


def is_server(uri: str) -> bool:
    """Whether `uri` is a server, which keeps artifacts itself, and not a database."""
    return uri.startswith(("http://", "https://", "databricks"))


def redacted(text: str) -> str:
    """`text` without the user and password of any address in it, nor MLflow's own secrets."""
    secrets = {os.environ.get(name, "") for name in SECRET_VARIABLES}
    _, _, address = os.environ.get("MLFLOW_TRACKING_URI", "").rpartition("://")
    password = address.rpartition("@")[0].partition(":")[2]
    # an error can quote the password alone, and decoded
    for secret in sorted(secrets | {password, unquote(password)}, key=len, reverse=True):
        text = text.replace(secret, "***") if secret else text
    # up to the last @: databases take passwords with / and @ in them
    return re.sub(r"://\S*@", "://***@", text)


@contextmanager
def server_errors(root: Path, advice: str = "") -> Iterator[None]:
    """A block in which an error of server, database or network becomes a one-line StudyError."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:
        message = f"MLflow at {redacted(tracking_uri(root))} unavailable: {_short(error)}"
        raise StudyError(message + (f"; {advice}" if advice else "")) from None


def _short(error: Exception) -> str:
    # redacted before it is cut: half an address would not be recognised
    return redacted(" ".join(str(error).split()))[:MESSAGE_LENGTH] or type(error).__name__


_reports: list[Callable[[float], object]] = []
"""What clients of this process tell of their calls to; see `patience.Reporting`."""


def report_to(report: Callable[[float], object]) -> None:
    """Let every client that is made from now on tell `report` of its calls."""
    _reports[:] = [report]


def connect(root: Path) -> "MlflowClient":
    """A client that gives up within seconds and logs nothing; makes a missing database."""
    uri = tracking_uri(root)
    if uri.startswith("sqlite:///"):
        _make_database(Path(uri.removeprefix("sqlite:///").partition("?")[0]))
    client = _client_at(uri)
    return cast("MlflowClient", Reporting(client, *_reports)) if _reports else client


def _make_database(path: Path) -> None:
    """Make the database where it is missing, whole or not at all.

    This process may be ended while MLflow makes the tables, which it could not repair.
    """
    if path.exists():
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new").absolute()
    temporary.unlink(missing_ok=True)
    try:
        _client_at(f"sqlite:///{temporary}").search_experiments()
        os.link(temporary, path)  # unlike a move, never over a database that another has made
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)


def _client_at(uri: str) -> "MlflowClient":
    # read by mlflow when it is imported, or at its first request
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(RETRIES))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(TIMEOUT_S))
    # at a run's end MLflow prints its address, password and all
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    from mlflow import MlflowClient

    # importing mlflow sets the levels of these: only afterwards can they be silenced
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not is_server(uri):
        from mlflow.store.db import utils

        # ten attempts with doubling pauses take minutes where there is no database
        utils.MAX_RETRY_COUNT = 2
    return MlflowClient(uri)


def make_experiment(client: "MlflowClient", name: str, root: Path) -> str:
    """The id of the experiment `name`, created if missing."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    return str(client.create_experiment(name, artifact_location=_artifacts(root)))


def find_experiment(client: "MlflowClient", name: str) -> str:
    """The id of the experiment `name`; StudyError if missing."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        raise StudyError(f"no experiment {name} in MLflow yet; run `sae-repro track` first")
    return str(experiment.experiment_id)


def _artifacts(root: Path) -> str | None:
    """A folder beside the database; None for a server, which has its own."""
    uri = tracking_uri(root)
    if is_server(uri):
        return None
    scheme, _, path = uri.partition(":///")
    folder = Path(path.partition("?")[0]).parent if scheme == "sqlite" else root
    return (folder / "mlartifacts").resolve().as_uri()


def search(client: "MlflowClient", experiment_id: str, tags: Mapping[str, str]) -> "Iterator[Run]":
    """The runs with these tags that sae-repro made; copies by others are left out."""
    # MLflow's filters have no escape for a quote: such a value is compared below
    query = " and ".join(f"tags.`{n}` = '{v}'" for n, v in tags.items() if "'" not in v)
    token = None
    while True:
        page = client.search_runs([experiment_id], query, page_token=token)
        for run in page:
            original = run.data.tags.get(MINE, run.info.run_id) == run.info.run_id
            if original and tags.items() <= run.data.tags.items():
                yield run
        token = page.token
        if not token:
            return
