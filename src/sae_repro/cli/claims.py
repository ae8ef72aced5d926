"""The command `claims`: the study's ledger of claims, computed again from its tables."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_repro.cli.output import echo
from sae_repro.errors import StudyError, did_you_mean, shown

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
    """The claims of the study in `folder`, whose cells and controls are all there.

    StudyError also for groups of cells between which there is no difference to take.
    """
    from sae_repro.compare.claims import pinned
    from sae_repro.control.recipes import trials
    from sae_repro.params.claims import check_cells

    found = pinned(study.compare, folder)
    if study.compare.claims is not None:
        controls = [f"{trial.name}: {trial.recipe}" for trial in trials(study.control, folder)]
        names = [*study.cells, *dict.fromkeys(controls)]
        source = str(folder / study.compare.claims.path)
        check_cells(found, names, source)
        if faults := [f"{source}: {line}" for line in _no_differences(found, names)]:
            raise StudyError("\n".join(faults))
    return found


def _no_differences(found: Mapping[str, "Claim"], names: list[str]) -> Iterator[str]:
    """A line for each claim that compares cells with themselves, or pairs too few."""
    from sae_repro.params.claims import Difference, Ratio, matching

    for name, claim in found.items():
        if not isinstance(test := claim.test, Difference | Ratio):
            continue
        cells, than = matching(test.cells, names), matching(test.than, names)
        if set(cells) == set(than):
            yield f"claims.{name}.test: cells and than name the same cells; name others in one"
        elif test.over == "cells" and len(cells) != len(than):
            yield (
                f"claims.{name}.test: over: cells takes pairs, and cells names {len(cells)} and "
                f"than {len(than)}; name as many in both"
            )


def unlisted_metrics(found: Mapping[str, "Claim"], study: Path) -> Iterator[str]:
    """A warning for each claim on a metric that no stage is known to write.

    Columns of the tables that `study` has are known, too: counts, which no list names.
    """
    from sae_repro.metrics import COLUMN_SUFFIXES, matching, nearest
    from sae_repro.metrics.world_truth import WORLDS

    columns = {row.name for row in WORLDS}
    for name in ("cells", "seeds", "control_trials", "consistency", "judged_cells"):
        if (path := study / TABLES / f"{name}.csv").is_file():
            with suppress(OSError, ValueError), path.open(encoding="utf-8") as file:
                header = file.readline().rstrip("\n").split(",")
                columns.update(f"judged_{of}" if name == "judged_cells" else of for of in header)
    for name, claim in found.items():
        metric = getattr(claim.test, "metric", None)
        if metric is None or metric in columns:
            continue
        base = next((metric.removesuffix(s) for s in COLUMN_SUFFIXES if metric.endswith(s)), metric)
        if metric.startswith("judged_") or matching(base):
            continue
        yield (
            f"warning: claims.{name}.test.metric = {shown(metric)}: none that `sae-repro metrics` "
            "lists; the claim stays undecided unless a table has this column"
            f"{did_you_mean(metric, nearest(metric))}"
        )


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
