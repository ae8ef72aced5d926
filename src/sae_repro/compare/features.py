"""Monosemanticity and structure of every cell: tables with intervals and denominators."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.tables import (
    ABSENT,
    interval_columns,
    measured_on,
    with_interval,
    write_table,
)
from sae_repro.metrics import CLASSES, names_in
from sae_repro.metrics.labels import KEY, heading


def features_table(results: Sequence[Result], metrics: Sequence[str]) -> pd.DataFrame:
    """A row per cell: its name, architecture, and each metric with `_low` and `_high`."""
    rows = []
    for r in results:
        row: dict[str, object] = {"cell": r.name, "architecture": r.architecture, "hook": r.hook,
                                  "l0": r.metrics.get("l0")}  # fmt: skip
        for metric in metrics:
            row |= {metric: r.metrics.get(metric), **interval_columns(r, [metric])}
        rows.append(row)
    return pd.DataFrame(rows)


def write_features(folder: Path, results: Sequence[Result]) -> None:
    """Write monosemantic and structure, as far as they were measured."""
    measured = {name for r in results for name in r.metrics}
    if measured & set(names_in("monosemantic.md")):
        _write_monosemantic(folder, results)
    present = [name for name in names_in("structure.md", measured) if name in measured]
    if present:
        frame = features_table(results, present)
        caption = (
            f"# Structure\n\nMeasured on {measured_on(results)} or the stated sample of them; "
            f"cells.csv has every denominator. Brackets: 95 % interval. {KEY}. Hole rate and "
            "absorption rate: over testable pairs of a parent concept and its child; childless "
            "recall: how well the parent's latents find it where no child is; max correlation: "
            "with SAEs of that width, and its null. A dash: not measured, or nothing to measure."
        )
        write_table(folder, "structure", frame, caption, _printed(results, present))


def _write_monosemantic(folder: Path, results: Sequence[Result]) -> None:
    metrics = names_in("monosemantic.md")
    frame = features_table(results, metrics)
    counts = pd.DataFrame(
        [
            {name: _count(r, name) for name in ("latents", "latents_alive")}
            | {name: _count(r, f"latents_{name}") for name in CLASSES}
            for r in results
        ]
    ).astype("Int64")
    text = counts.map(lambda count: ABSENT if pd.isna(count) else f"{count:,}")
    printed = pd.concat([_printed(results, metrics), text], axis=1)
    caption = (
        f"# Monosemanticity\n\nEach latent against the concept bank, on {measured_on(results)}: "
        "concept and threshold chosen on one half of the documents, scored on the other. "
        "Monosemantic: M ≥ .7 (complete: φ ≥ .7 too; narrow: not). Brackets: 95 % interval. "
        f"{KEY}. The last cells are negative controls if the study has them: what scores there "
        "like a trained SAE measures nothing."
    )
    write_table(folder, "monosemantic", pd.concat([frame, counts], axis=1), caption, printed)


def _count(result: Result, name: str) -> int | None:
    """The count, summed over the SAEs of a cell with several seeds."""
    counts = [sae.measured["counts"].get(name) for sae in result.saes]
    return sum(counts) if counts and None not in counts else None


def _printed(results: Sequence[Result], metrics: Sequence[str]) -> pd.DataFrame:
    rows = []
    for r in results:
        row = {"cell": r.name}
        for metric in metrics:
            row[heading(metric)] = with_interval(r.metrics.get(metric), r.interval(metric))
        rows.append(row)
    return pd.DataFrame(rows)
