"""The commands `track`, `ui` and `tune-ui`: results in MLflow, trials in optuna-dashboard."""

from pathlib import Path
from typing import Annotated

import typer

from sae_repro.cli.output import echo

StudyFolder = Annotated[Path, typer.Argument(help="Folder that holds params.yaml.")]
Port = Annotated[
    int, typer.Option(min=1, max=65_535, help="Port on 127.0.0.1; another if it is taken.")
]


def track(
    study: StudyFolder = Path(),
    prune: Annotated[
        bool, typer.Option("--prune", help="Also delete this study's superseded runs from MLflow.")
    ] = False,
    commit: Annotated[
        str | None, typer.Option(help="Send nothing: list the runs that a commit recorded.")
    ] = None,
) -> None:
    """Send a study's results to MLflow; safe to repeat.

    Sends what is missing there. The server is MLFLOW_TRACKING_URI, or else mlflow.db in the
    repository's root, which `sae-repro ui` shows.

    Example: sae-repro track --prune
    """
    from sae_repro.cli import tracking

    lines = (
        tracking.track(study, prune=prune) if commit is None else tracking.runs_of(study, commit)
    )
    for line in lines:
        echo(line)


def ui(
    study: StudyFolder = Path(),
    port: Port = 5000,
    browser: Annotated[bool, typer.Option(help="Open a browser where there is a screen.")] = True,
) -> None:
    """Open MLflow on a study's charts; Ctrl-C ends it.

    Served on 127.0.0.1, or by the server of MLFLOW_TRACKING_URI.

    Example: sae-repro ui --port 5001
    """
    from sae_repro import params
    from sae_repro.track.ui import show

    loaded = params.load(study / "params.yaml")
    show(study, study / loaded.root, loaded.track.experiment, port, browser=browser)


def tune_ui(
    study: StudyFolder = Path(),
    port: Port = 8080,
    browser: Annotated[bool, typer.Option(help="Open a browser where there is a screen.")] = True,
) -> None:
    """Open optuna-dashboard on a study's search; Ctrl-C ends it.

    Where the search's journal is missing, as in a clone, it is rebuilt from tune/trials.csv.

    Example: sae-repro tune-ui --port 8081
    """
    from sae_repro.tune.dashboard import show

    show(study, port, browser=browser)
