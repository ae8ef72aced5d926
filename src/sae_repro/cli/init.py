"""The command `init`: a study in a folder of its own."""

from pathlib import Path
from typing import Annotated

import typer

from sae_repro.cli.output import echo


def init(
    folder: Annotated[Path, typer.Argument(help="A new or an empty one; --renew: a study's.")] = (
        Path()
    ),
    from_: Annotated[
        str, typer.Option("--from", help="demo, embedded, or another template's name.")
    ] = "demo",
    renew: Annotated[
        bool, typer.Option("--renew", help="Record the installed code and libraries instead.")
    ] = False,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Also add tune/, a search by Optuna: dvc repro tune/dvc.yaml."),
    ] = False,
) -> None:
    """Make a study in a folder of its own, with git and DVC.

    It needs no checkout of sae-repro. After an upgrade of the package, --renew records the
    installed code and libraries; stages whose code changed run again.

    Examples:

    sae-repro init mystudy && cd mystudy && dvc repro

    sae-repro init --renew
    """
    from sae_repro.cli.outside import make, renewed

    for line in renewed(folder, tune=tune) if renew else make(folder, from_, tune=tune):
        echo(line)
