"""The command `plan`: a study's cells and what training them will take, before anything runs."""

import csv
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_repro.cli.output import echo

if TYPE_CHECKING:
    from sae_repro.params import Cell, Study

UNKNOWN = "–"


def plan(
    study: Annotated[Path, typer.Argument(help="Folder that holds params.yaml.")] = Path(),
) -> None:
    """List the SAEs to be trained, with estimated CPU time.

    Each line has the width, the tokens and the operations of a training. A family of cells
    (`scaling`) is listed cell by cell. Estimates come from finished trainings of the nearest K at
    the same D, in this study or the repository's root: artifacts/train, or else reports/costs.csv.

    Example: sae-repro plan studies/scaling-stories
    """
    for line in lines_of(study):
        echo(line)


@dataclass(frozen=True)
class Known:
    """A training that was done: its size, and the processor's seconds per token."""

    d_in: int
    d_sae: int
    cpu_per_token: float


def lines_of(folder: Path) -> Iterator[str]:
    """A row per cell that is trained, in the order of params.yaml, and their sum."""
    from tabulate import tabulate

    from sae_repro.params import load

    study = load(folder / "params.yaml")
    source, known = _known(folder, study)
    measured = next((one.d_in for one in known), None)
    rows, all_operations, all_seconds, saes = [], 0, 0.0, 0
    unknown = 0
    for name, cell in study.cells.items():
        if cell.kind != "trained":
            continue
        tokens, seeds = _tokens(cell, study), len(cell.members())
        operations = seconds = None
        d_in = study.d_in_of(cell) or (None if cell.hooks else measured)
        if d_in is not None:
            operations = seeds * _operations(cell, study, d_in)
            seconds = _seconds(known, d_in, cell.width(d_in), seeds * tokens)
            all_operations += operations
        all_seconds += seconds or 0
        unknown += seconds is None
        saes += seeds
        rows.append(
            [
                name,
                f"{cell.expansion:g} D" if d_in is None else f"{cell.width(d_in):,}",
                f"{tokens:,}",
                seeds,
                UNKNOWN if operations is None else f"{operations:.2g}",
                UNKNOWN if seconds is None else f"{seconds:,.1f}",
            ]
        )
    headers = ["cell", "K", "tokens", "SAEs", "operations", "CPU s, estimated"]
    yield str(tabulate(rows, headers=headers, disable_numparse=True))
    total = f"{all_operations:.2g} operations" if all_operations else UNKNOWN
    estimate = f"about {all_seconds:,.0f} s of CPU, by {source}"
    if unknown:
        estimate = "no comparable training to estimate the time from"
        if unknown < len(rows):
            estimate = f"{estimate} of {unknown} cells; the others: about {all_seconds:,.0f} s"
    yield f"\n{len(rows)} cells, {saes} SAEs: {total}; {estimate}"


def _tokens(cell: "Cell", study: "Study") -> int:
    """Training tokens of one SAE: whole batches, at most what extract writes."""
    steps = cell.steps(study.train.batch_size, study.train.epochs, study.extract.n_tokens)
    return steps * study.train.batch_size


def _operations(cell: "Cell", study: "Study", d_in: int) -> int:
    from sae_repro.params.operations import step_operations

    batch = study.train.batch_size
    return step_operations(cell, d_in, batch) * (_tokens(cell, study) // batch)


def _seconds(known: Sequence[Known], d_in: int, width: int, tokens: int) -> float | None:
    """CPU seconds from trainings of the nearest K at this D; in proportion to K beyond them."""
    there = [one for one in known if one.d_in == d_in]
    if not there:
        return None
    nearest = min({one.d_sae for one in there}, key=lambda k: (max(k, width) / min(k, width), k))
    per_token = statistics.median(one.cpu_per_token for one in there if one.d_sae == nearest)
    return tokens * per_token * max(1.0, width / nearest)


def _known(folder: Path, study: "Study") -> tuple[str, list[Known]]:
    """(where they are from, trainings that were measured): the nearest place that has some."""
    from sae_repro.costs import trainings
    from sae_repro.params import saes_by_name
    from sae_repro.verify.files import COSTS

    here = [
        Known(one.d_in, one.d_sae, one.cost.cpu_seconds / one.tokens)
        for one in trainings(saes_by_name(study.cells), folder)
        if one.cost is not None and one.tokens
    ]
    if here:
        return "trainings of this checkout", here
    for path in (folder / COSTS, folder / study.root / COSTS):
        found = _recorded(path)
        if found:
            return os.path.normpath(path), found  # not studies/NAME/../../reports
    return "", []


def _recorded(path: Path) -> list[Known]:
    """The trainings in a reports/costs.csv; none where it can't be read."""
    found = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                seconds = float(row["cpu_seconds"]) / int(row["tokens"])
                found.append(Known(int(row["D"]), int(row["K"]), seconds))
    except (
        OSError,
        UnicodeDecodeError,
        csv.Error,
        KeyError,
        TypeError,
        ValueError,
        ZeroDivisionError,
    ):
        return []
    return found
