"""The command `sae-repro metrics`: the registry of metrics as text."""

from collections.abc import Iterator
from typing import Annotated

import typer

from sae_repro.cli.output import echo
from sae_repro.errors import StudyError

COLUMNS = ("metric", "unit", "better", "95 % interval", "written by", "shown in")


def metrics(
    name: Annotated[
        str | None, typer.Argument(help="A metric's name, as in metrics.json. Default: list all.")
    ] = None,
) -> None:
    """List the metrics that a study writes, or explain one.

    The list has each metric's unit, direction, kind of interval and the tables that show it.

    Example: sae-repro metrics hole_rate
    """
    for line in lines_of(name):
        echo(line)


def lines_of(name: str | None) -> Iterator[str]:
    """All metrics, a table per area; or every field of the metric `name`.

    StudyError where there is none of that name.
    """
    from tabulate import tabulate

    from sae_repro.metrics import AREAS, matching, nearest
    from sae_repro.metrics.listing import columns_of, table_of

    if name is None:
        for area, rows in AREAS.items():
            yield f"{area}\n\n{tabulate(table_of(rows, COLUMNS), headers='keys')}\n"
        return
    rows_of_name = matching(name)
    if not rows_of_name:
        raise StudyError(
            f"{name}: no such metric; nearest: {', '.join(nearest(name)) or 'none'}; "
            "`sae-repro metrics` lists them all"
        )
    for number, metric in enumerate(rows_of_name):
        fields = tabulate(columns_of(metric).items(), tablefmt="plain", maxcolwidths=[None, 80])
        yield f"\n{fields}" if number else str(fields)
