"""The command `costs`: what each training took, as a table or as reports/costs.csv."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sae_repro.cli.output import echo
from sae_repro.errors import StudyError
from sae_repro.files import write_text

if TYPE_CHECKING:
    from sae_repro.costs import Training

UNKNOWN = "–"


def costs(
    study: Annotated[Path, typer.Argument(help="Folder that holds params.yaml.")] = Path(),
    record: Annotated[
        bool,
        typer.Option("--record", help="Write reports/costs.csv, with this machine's versions."),
    ] = False,
) -> None:
    """List what training each SAE took.

    Each line has the SAE's size, its operations, seconds, tokens per second and the device. Times
    are known of SAEs that were trained in this checkout. `verify` does not compare them.

    Example: sae-repro costs --record
    """
    for line in lines_of(study, record=record):
        echo(line)


def lines_of(study: Path, *, record: bool) -> Iterator[str]:
    """A row per trained SAE, in the order of params.yaml; StudyError where there is none."""
    from tabulate import tabulate

    from sae_repro.costs import trainings
    from sae_repro.params import load, saes_by_name

    found = list(trainings(saes_by_name(load(study / "params.yaml").cells), study))
    if not found:
        raise StudyError(f"{study / 'artifacts/train'}: no SAE is trained; `dvc repro` trains them")
    shown = [
        {name: _printed(value) for name, value in _row(training).items()} for training in found
    ]
    yield str(tabulate(shown, headers="keys", disable_numparse=True))
    if record:
        yield _record(study, [_row(training) for training in found if training.cost is not None])


def _row(training: "Training") -> dict[str, Any]:
    cost, rate = training.cost, training.tokens_per_second
    return {
        "sae": training.name,
        "hook": training.hook,
        "D": training.d_in,
        "K": training.d_sae,
        "parameters": training.parameters,
        "flops_per_step": training.operations,
        "tokens": training.tokens,
        "seconds": cost and round(cost.seconds, 1),
        "cpu_seconds": cost and round(cost.cpu_seconds, 1),
        "parts": cost and cost.parts,
        "tokens_per_second": rate and round(rate),
        "device": cost and cost.device,
    }


def _printed(value: object) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _record(study: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the rows of what was measured, with the versions of this machine; what was done."""
    from sae_repro.verify.files import COSTS
    from sae_repro.verify.machines import bits_of, this_machine

    if not rows:
        raise StudyError(
            f"{study}: none of these trainings was measured: they were not done by this checkout"
        )
    machine = this_machine(bits_of(study))
    facts = {name: getattr(machine, name) for name in ("system", "python", "torch", "bits")}
    file = io.StringIO()
    writer = csv.DictWriter(file, [*rows[0], *facts], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, **facts} for row in rows)
    write_text(study / COSTS, file.getvalue())
    return f"{study / COSTS}: {len(rows)} trainings"
