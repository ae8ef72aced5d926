"""The command `code`: the code on which stages depend, compared with that in src/."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from sae_repro.cli.output import echo
from sae_repro.errors import StudyError

SHOWN = 5


def code(
    write: Annotated[
        bool, typer.Option("--write", help="Write code/, as DVC's stage `code` does.")
    ] = False,
) -> None:
    """List the stages whose code changed since they ran.

    It also lists the files that differ. Each stage S depends on code/S.txt, which has a hash of
    every module that decides its output; comments, layout and docstrings don't count. `dvc repro`
    renews these files before anything else, and then runs the stages that differ. Run this in the
    root of a checkout. Exit code 1 where code differs.

    Example: sae-repro code
    """
    from sae_repro.installation import is_checkout, record_code

    if not is_checkout(Path()):
        raise StudyError(
            f"{Path().resolve()}: no src/sae_repro here; run this in the root of a checkout. A "
            "study of `sae-repro init` records what is installed: `sae-repro init --renew`"
        )
    if write:
        record_code(Path())
        return
    lines = list(_changes())
    echo("\n".join(lines) or "every stage has the code that is recorded in code/")
    raise typer.Exit(1 if lines else 0)


def _changes() -> Iterator[str]:
    from sae_repro.installation import changed_code

    for stage, files in changed_code(Path()).items():
        more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
        yield f"{stage}: {', '.join(files[:SHOWN])}{more}"
