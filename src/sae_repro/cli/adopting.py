"""The command `adopt`: what a search found, written into params.yaml."""

from pathlib import Path
from typing import Annotated

import typer

from sae_repro.cli.output import echo


def adopt(
    trial: Annotated[
        list[int] | None, typer.Option(help="Number of a trial; repeatable. Default: the best.")
    ] = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Every trial on the Pareto front.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="Cells are named PREFIX-recipe-number.")] = "tuned",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the diff and write nothing.")
    ] = False,
    study: Annotated[Path, typer.Option(help="Folder that holds params.yaml.")] = Path(),
) -> None:
    """Write the settings that a search found into params.yaml.

    Reads tune/best.yaml and shows the diff. If tune/params.yaml has `studies`, the settings that
    beat those of the recipes go into the recipes. Otherwise, and with --trial or --pareto, trials
    become cells, whose trained SAEs the next `dvc repro` takes from the store.

    Examples:

    sae-repro adopt --dry-run

    sae-repro adopt --pareto --dry-run

    sae-repro adopt --trial 17 --trial 23
    """
    from sae_repro.cli.adoption import adopt as lines_of

    for line in lines_of(study, trial or (), pareto=pareto, prefix=prefix, dry_run=dry_run):
        echo(line)
