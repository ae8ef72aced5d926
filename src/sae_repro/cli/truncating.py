"""The command `truncations`: how well parts of a code reconstruct, beside SAEs made for them."""

import csv
import io
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_repro.cli.output import echo
from sae_repro.cli.trained import StudyOption
from sae_repro.errors import StudyError
from sae_repro.numerics.kernels import choose
from sae_repro.params import Study, load

if TYPE_CHECKING:
    from sae_repro.latents.truncated_cell import Asked, By, Curve, Peer, TrainedSAE

HEADS = {"k": "the k' strongest latents of each token", "prefix": "the first l latents"}
BY_THRESHOLD = "the latents above the threshold that lets k' per calibration token through"
SYMBOL = {"k": "k'", "prefix": "l"}
MEAN = "mean"


@dataclass(frozen=True)
class Row:
    """A line of the CSV: L0 and FVU of one SAE at one truncation, or their means over seeds."""

    cell: str
    """The truncated cell."""
    cut: str
    """k or prefix."""
    at: int
    sae: str
    """The cell itself, or one that was trained for this truncation alone."""
    seed: str
    """Its number, `mean`, or empty of a cell with one SAE."""
    l0: float
    fvu: float
    bounds: Sequence[float] | None
    """95 %: of a seed over resampled documents, of a mean over seeds."""


def truncations(
    cell: Annotated[list[str], typer.Argument(help="A trained cell, or CELL/seed-N; several.")],
    k: Annotated[
        list[int] | None, typer.Option(min=1, help="Latents per token to keep; repeatable.")
    ] = None,
    prefix: Annotated[
        list[int] | None, typer.Option(min=1, help="First latents to keep; repeatable.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Also write every seed's numbers to this file.")
    ] = None,
    study: StudyOption = Path(),
) -> None:
    """List L0 and FVU of an SAE cut to fewer latents.

    Measured on held-out tokens. Either the k' strongest latents of each token are kept (of a
    BatchTopK SAE those above the threshold that lets k' per token through on calibration tokens),
    or the first l latents of the dictionary, which an SAE with `prefixes` is trained to make
    useful. Without --k and --prefix both are listed, at powers of two and for all latents; the
    latter's FVU is that of metrics.json.

    Beside each cut are the study's cells without prefixes that were trained at that size: with k =
    k' and as many latents, or with l latents and the same activation and target L0. Intervals are
    95 %: over seeds, or over documents where there is one SAE.

    Examples:

    sae-repro truncations hierarchical-k16 topk-k16 --study studies/matryoshka

    sae-repro truncations hierarchical-k16 --k 4 --k 8 --csv truncated.csv

    sae-repro truncations matryoshka-x8-k16/seed-1 --prefix 32 --prefix 128
    """
    loaded = load(study / "params.yaml")
    if csv_file is not None and not csv_file.absolute().parent.is_dir():
        raise StudyError(f"--csv {csv_file}: no folder {csv_file.parent}; make it first")
    if not {"numpy", "torch"} & set(sys.modules):
        choose(loaded.compute.bits)
    from sae_repro.latents.truncated_cell import Asked
    from sae_repro.numerics.determinism import prepare

    prepare(device="cpu", threads=1)
    rows: list[Row] = []
    for number, (lines, own) in enumerate(
        _tables(loaded, study, list(dict.fromkeys(cell)), Asked(_rising(k), _rising(prefix)))
    ):
        echo("\n" * bool(number) + "\n".join(lines))
        rows += own
    if csv_file is not None:
        from sae_repro.files import write_text

        write_text(csv_file, _csv(rows))
        echo(f"\nwrote {csv_file}: {len(rows)} rows")


def _rising(given: Sequence[int] | None) -> tuple[int, ...] | None:
    return tuple(sorted(set(given))) if given else None


def _tables(
    loaded: Study, study: Path, names: Sequence[str], asked: "Asked"
) -> Iterator[tuple[list[str], list[Row]]]:
    """(what to print, what to write) of each cell; all are found before the first is encoded."""
    from sae_repro.contents import check
    from sae_repro.latents.truncated_cell import curves, saes_named, tokens_of
    from sae_repro.progress import bar

    found = [saes_named(study, loaded.cells, name) for name in names]
    check(study / "artifacts/extract", "manifest.json")
    total = sum(tokens_of(study, sae) for saes, _ in found for sae in saes)
    with bar("truncating", unit="tokens", total=total) as progress:
        for saes, note in found:
            measured = [curves(loaded, study, sae, asked, progress.update) for sae in saes]
            yield _of_cell(loaded, study, measured, note)


def _of_cell(
    loaded: Study, study: Path, measured: "Sequence[Sequence[Curve]]", note: str
) -> tuple[list[str], list[Row]]:
    from tabulate import tabulate

    from sae_repro.latents.truncated_cell import Peer, peers

    first = measured[0][0].sae
    held_out = measured[0][0].truncations[0].held_out
    lines = [
        f"{first.cell if len(measured) > 1 else first.name}: {first.record['hook']}, K "
        f"{first.record['d_sae']:,}, {_count(len(measured), 'SAE')}, "
        f"{int(held_out.tokens.sum()):,} held-out tokens",
        *([note] if note else []),
    ]
    rows: list[Row] = []
    notes: list[str] = []
    for curves in zip(*measured, strict=False):
        by = curves[0].by
        shown: list[Mapping[str, str]] = []
        for at in dict.fromkeys(one.at for curve in curves for one in curve.truncations):
            own = _own_rows(curves, at, loaded.seed)
            beside = peers(study, loaded.cells, first, by, at)
            notes += [peer for peer in beside if isinstance(peer, str)]
            trained = [_peer_rows(p, first.cell, by, at) for p in beside if isinstance(p, Peer)]
            rows += [*own, *(row for part in trained for row in part)]
            shown += _shown(by, own, trained)
        lines += ["", _head(by, first), str(tabulate(shown, headers="keys", disable_numparse=True))]
    return [*lines, *dict.fromkeys(notes)], rows


def _head(by: "By", sae: "TrainedSAE") -> str:
    calibrated = sae.settings.activation_row.threshold == "calibrated"
    if by == "k" and calibrated and sae.settings.kind != "imported":
        return BY_THRESHOLD
    return HEADS[by]


def _own_rows(curves: "Sequence[Curve]", at: int, seed: int) -> list[Row]:
    """Of each SAE; one whose code is whole before `at` has its last truncation there."""
    rows = []
    for curve in curves:
        one = next((t for t in curve.truncations if t.at == at), curve.truncations[-1])
        number = _number(curve.sae.place)
        bounds = one.fvu_interval(seed)
        rows.append(
            Row(curve.sae.cell, curve.by, at, curve.sae.cell, number, one.l0, one.fvu, bounds)
        )
    return _with_mean(rows)


def _peer_rows(peer: "Peer", cell: str, by: "By", at: int) -> list[Row]:
    return _with_mean(
        [
            Row(
                cell, by, at, peer.name, _number(place), measured["metrics"]["l0"],
                measured["metrics"]["fvu"], measured["intervals"].get("fvu"),
            )
            for place, measured in peer.seeds.items()
        ]
    )  # fmt: skip


def _number(place: str) -> str:
    return "" if place == "." else place.removeprefix("seed-")


def _with_mean(rows: list[Row]) -> list[Row]:
    """`rows` of the seeds, and behind them their mean; one row alone is as it is."""
    from sae_repro.metrics import find, mean_over_seeds

    if len(rows) < 2:
        return rows
    first = rows[0]
    fvu, *bounds = mean_over_seeds(find("fvu"), [row.fvu for row in rows])
    l0 = sum(row.l0 for row in rows) / len(rows)
    mean = Row(first.cell, first.cut, first.at, first.sae, MEAN, l0, fvu, bounds)
    return [*rows, mean]


def _shown(
    by: "By", own: Sequence[Row], trained: Sequence[Sequence[Row]]
) -> Iterator[Mapping[str, str]]:
    """A line of the table, and one more for each further cell that was trained for it."""
    for number, beside in enumerate(trained or [()]):
        yield {
            SYMBOL[by]: "" if number else f"{own[-1].at:,}",
            **_cells(() if number else own, ""),
            "trained for it": beside[-1].sae if beside else "" if number else "–",
            **_cells(beside, " "),
        }


def _cells(rows: Sequence[Row], mark: str) -> Mapping[str, str]:
    """L0, FVU, interval and seeds; `mark` tells the heads of one SAE's from another's."""
    heads = [f"{head}{mark}" for head in ("L0", "FVU", "95 %", "by seed")]
    if not rows:
        return dict.fromkeys(heads, "")
    last = rows[-1]
    known = last.bounds is not None and not any(map(math.isnan, last.bounds))
    bounds = "[{:.4f}, {:.4f}]".format(*last.bounds) if known and last.bounds else "–"
    seeds = " ".join(f"{row.fvu:.4f}" for row in rows if row.seed != MEAN)
    return dict(zip(heads, (f"{last.l0:.2f}", f"{last.fvu:.4f}", bounds, seeds), strict=True))


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def _csv(rows: Sequence[Row]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["cell", "cut", "at", "sae", "seed", "l0", "fvu", "fvu_low", "fvu_high"])
    for row in rows:
        bounds = row.bounds or (math.nan, math.nan)
        numbers = ["" if math.isnan(v) else f"{v:.6g}" for v in (row.l0, row.fvu, *bounds)]
        writer.writerow([row.cell, row.cut, row.at, row.sae, row.seed, *numbers])
    return file.getvalue()
