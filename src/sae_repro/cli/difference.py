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
        bool, typer.Option("--all", help="Every number, name and file, not the first few.")
    ] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit 1 where something changed.")
    ] = False,
) -> None:
    """Say what changed in the recorded results between two revisions, and what may be why.

    Claims that turned, sentences of the verdict and the findings, cells, and numbers whose 95 %
    intervals before and after have nothing in common; then params, data, versions and code by
    stage, from dvc.lock. Reads git's objects and checks nothing out; nothing is computed again.

    What changed within its interval is counted and not listed. Examples:

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
