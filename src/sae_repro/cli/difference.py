"""The command `diff`: what changed in a study's recorded results between two revisions."""

from pathlib import Path
from typing import Annotated

import typer

from sae_repro.cli.output import echo


def diff(
    rev_a: Annotated[str, typer.Argument(help="A revision of git, such as HEAD~1 or v1.0.")],
    rev_b: Annotated[
        str | None, typer.Argument(help="A later one. Default: the working tree.")
    ] = None,
    study: Annotated[Path, typer.Option(help="Folder that holds params.yaml.")] = Path(),
    everything: Annotated[
        bool,
        typer.Option("--all", help="List every number, name and file, not only the first few."),
    ] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit 1 where something changed.")
    ] = False,
) -> None:
    """Show what changed in recorded results, and why it may have.

    Lists claims with another verdict, changed sentences of the verdict and the findings, cells, and
    numbers whose 95 % intervals before and after do not overlap; then changed params, data,
    versions and code by stage, from dvc.lock. Changes within an interval are only counted.

    It reads git's objects: nothing is checked out or computed again.

    Examples:

    sae-repro diff HEAD~1

    sae-repro diff v1.0 HEAD --study studies/stories260k --all
    """
    from sae_repro.revisions import changes, reasons, report, snapshot

    with snapshot(study, rev_a) as before, snapshot(study, rev_b) as after:
        found = changes(before, after)
        why = reasons(study, before, after)
        names = before.name, after.name
    for line in report(found, why, names, everything=everything):
        echo(line)
    raise typer.Exit(1 if exit_code and found else 0)
