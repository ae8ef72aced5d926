"""The command `claims`: the study's ledger of claims, computed again from its tables."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_repro.cli.output import echo
from sae_repro.errors import StudyError, did_you_mean

if TYPE_CHECKING:
    from sae_repro.compare.claims import Entry
    from sae_repro.params import Study
    from sae_repro.params.claims import Claim

TABLES = Path("reports/tables")
RTOL = 1e-9
"""Of numbers that are computed again: what a CSV file's digits and a sum's order may change."""


def claims(
    claim: Annotated[str | None, typer.Argument(help="A claim's id. Default: all of them.")] = None,
    study: Annotated[Path, typer.Option(help="Folder that holds params.yaml.")] = Path(),
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 where claims.csv says something else.")
    ] = False,
) -> None:
    """Decide a study's claims again, from reports/tables.

    Prints numbers, intervals and verdicts. Claims are in the YAML file that compare.claims names.

    Examples:

    sae-repro claims resampling-cuts-death

    sae-repro claims --check
    """
    lines, code = lines_of(study, claim, check=check)
    for line in lines:
        echo(line)
    raise typer.Exit(code)


def lines_of(study: Path, name: str | None, *, check: bool) -> tuple[list[str], int]:
    """(lines on the claim `name`, or on all; exit code); StudyError where nothing can be read."""
    from sae_repro.compare.claim_data import read_tables
    from sae_repro.compare.claims import entries, lines_of, pinned
    from sae_repro.params import load

    found = pinned(load(study / "params.yaml").compare, study)
    if not found:
        raise StudyError(f"{study / 'params.yaml'}: compare.claims: not set; see docs/claims.md")
    if name is not None and name not in found:
        raise StudyError(f"{name}: no such claim{did_you_mean(name, found)}")
    chosen = found if name is None else {name: found[name]}
    tables = read_tables(study / TABLES)
    decided = entries(chosen, tables)
    lines = [line for entry in decided for line in lines_of(entry, tables)]
    if not check:
        return lines, 0
    faults = list(differences(decided, study / TABLES / "claims.csv"))
    return (faults, 1) if faults else ([f"{len(decided)} claims: as in claims.csv"], 0)


def check_worlds(study: "Study", folder: Path) -> None:
    """StudyError for a spec file of a world that is not as it was pinned, or is none."""
    from sae_repro.control.recipes import trials

    if any(not isinstance(world, str) for world in study.control.worlds):
        trials(study.control, folder)


def check_claims(study: "Study", folder: Path) -> Mapping[str, "Claim"]:
    """The claims of the study in `folder`, whose cells and controls are all there."""
    from sae_repro.compare.claims import pinned
    from sae_repro.control.recipes import trials
    from sae_repro.params.claims import check_cells

    found = pinned(study.compare, folder)
    if study.compare.claims is not None:
        controls = [f"{trial.name}: {trial.recipe}" for trial in trials(study.control, folder)]
        names = [*study.cells, *dict.fromkeys(controls)]
        check_cells(found, names, str(folder / study.compare.claims.path))
    return found


def differences(decided: "list[Entry]", path: Path) -> Iterator[str]:
    """A line for each claim of which the table at `path` says something else."""
    from sae_repro.compare.claims import recorded_rows, row_of

    recorded = recorded_rows(path)
    for entry in decided:
        row = row_of(entry)
        if entry.name not in recorded:
            yield f"{entry.name}: not in {path}; `dvc repro compare` writes it"
            continue
        for column, value in row.items():
            was = recorded[entry.name].get(column, "")
            if not _same(was, value):
                yield f"{entry.name}: {column}: {was or '—'} in {path}, {value or '—'} now"


def _same(was: str, now: str) -> bool:
    try:
        return math.isclose(float(was), float(now), rel_tol=RTOL, abs_tol=RTOL)
    except ValueError:
        return was == now
