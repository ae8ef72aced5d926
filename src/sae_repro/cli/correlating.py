"""The command `correlations`: how well cells hold the latents of reference cells."""

import csv
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_repro.cli.output import echo
from sae_repro.cli.trained import StudyOption
from sae_repro.errors import StudyError
from sae_repro.numerics.kernels import choose
from sae_repro.params import Study, load

if TYPE_CHECKING:
    from sae_repro.evaluate.metrics.references.correlation import Rows
    from sae_repro.latents.correlated_cells import Correlation, Named


def correlations(
    cell: Annotated[
        list[str], typer.Argument(help="A trained cell, CELL/seed-N, or a pattern with *; several.")
    ],
    reference: Annotated[
        list[str] | None,
        typer.Option(help="A cell whose latents are looked for, or a pattern; repeatable."),
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Also write all numbers to this file.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw correlations.png, .svg and .pdf into this folder.")
    ] = None,
    study: StudyOption = Path(),
) -> None:
    """Measure how well SAEs hold the latents of other SAEs.

    Mean max correlation: for each latent of a reference SAE, the largest correlation of its
    activations with those of any latent of the SAE, over a sample of held-out tokens; the mean over
    latents. The null, which rises with K, is the same with the reference's tokens shifted to other
    documents.

    Without --reference, each cell is compared with each. Cells with several seeds are compared over
    pairs of different seeds, also with themselves; 95 % intervals are the jackknife's over seeds,
    from three seeds up.

    Examples:

    sae-repro correlations 'batchtopk-*' --study studies/widths

    sae-repro correlations 'matryoshka-*' --reference 'batchtopk-*' --csv mmc.csv --figure .
    """
    loaded = load(study / "params.yaml")
    if csv_file is not None and not csv_file.absolute().parent.is_dir():
        raise StudyError(f"--csv {csv_file}: no folder {csv_file.parent}; make it first")
    if figure is not None and not figure.is_dir():
        raise StudyError(f"--figure {figure}: no such folder; make it first")
    if not {"numpy", "torch"} & set(sys.modules):
        choose(loaded.compute.bits)
    from sae_repro.numerics.determinism import prepare

    prepare(device="cpu", threads=1)
    found, lines = _measured(loaded, study, list(cell), list(reference or cell))
    echo("\n".join(lines))
    if csv_file is not None:
        from sae_repro.files import write_text

        write_text(csv_file, _csv(found))
        echo(f"\nwrote {csv_file}: {len(found)} rows")
    if figure is not None:
        from sae_repro.latents.correlation_figure import NAME, draw

        draw(figure, found)
        echo(f"\ndrew {figure / NAME}.png, .svg and .pdf")


def _measured(
    loaded: Study, study: Path, cells: list[str], references: list[str]
) -> "tuple[list[Correlation], list[str]]":
    """The correlations and what to print; all cells are found before the first is encoded."""
    from sae_repro.contents import check
    from sae_repro.latents import correlated_cells as of_cells
    from sae_repro.progress import bar

    named, notes = of_cells.cells_named(study, loaded.cells, cells)
    beside, more = of_cells.cells_named(study, loaded.cells, references)
    hook = of_cells.one_hook([*named, *beside])
    wanted = of_cells.pairs_of(beside, named)
    if not wanted:
        raise StudyError(
            f"{', '.join(one.name for one in named)}: an SAE can't be compared with itself; "
            "name another cell as --reference"
        )
    check(study / "artifacts/extract", "manifest.json")
    rows = of_cells.sample(loaded, study, hook)
    with bar("encoding", unit="SAEs") as progress:
        codes = of_cells.encode(loaded, study, [*named, *beside], rows, progress.update)
    total = sum(len(pairs) for *_, pairs in wanted)
    with bar("correlating", unit="pairs of SAEs", total=total) as progress:
        found = list(of_cells.correlations(wanted, codes, progress.update))
    return found, _lines(found, [*notes, *more], hook, rows)


def _lines(
    found: "Sequence[Correlation]", notes: Sequence[str], hook: str, rows: "Rows"
) -> list[str]:
    import numpy as np
    from tabulate import tabulate

    documents = len(np.unique(rows.document))
    head = f"{hook}, {len(rows.document):,} held-out tokens of {documents:,} documents"
    table = [
        {
            **_side("", one.cell, one.cell_l0),
            **_side("reference ", one.reference, one.reference_l0),
            "mean max correlation": _shown(one.found.value),
            "95 %": _interval(one),
            "null": _shown(one.found.null),
            "latents": f"{one.found.latents:,.0f}",
            "pairs": f"{one.found.pairs}",
        }
        for one in found
    ]
    shown = str(tabulate(table, headers="keys", disable_numparse=True))
    return [head, *dict.fromkeys(notes), "", shown]


def _side(of: str, named: "Named", l0: float) -> dict[str, str]:
    heads = (f"{of or 'SAE '}".strip(), f"{of}K", f"{of}L0")
    return dict(zip(heads, (named.name, f"{named.width:,}", f"{l0:.2f}"), strict=True))


def _shown(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _interval(one: "Correlation") -> str:
    low, high = one.found.low, one.found.high
    return "–" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]"


def _csv(found: "Sequence[Correlation]") -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["cell", "architecture", "K", "l0", "reference", "reference_architecture", "reference_K",
         "reference_l0", "latents", "pairs", "mean_max_correlation", "low", "high", "null"]
    )  # fmt: skip
    for one in found:
        of = one.found
        numbers = [
            "" if math.isnan(v) else f"{v:.6g}" for v in (of.value, of.low, of.high, of.null)
        ]
        writer.writerow(
            [one.cell.name, one.cell.architecture, one.cell.width, f"{one.cell_l0:.6g}",
             one.reference.name, one.reference.architecture, one.reference.width,
             f"{one.reference_l0:.6g}", f"{of.latents:.6g}", of.pairs, *numbers]
        )  # fmt: skip
    return file.getvalue()
