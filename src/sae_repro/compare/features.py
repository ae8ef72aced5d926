"""Monosemanticity and structure of every cell: tables with intervals and denominators."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.common_pairs import COMMON, common_pairs
from sae_repro.compare.differences import estimate
from sae_repro.compare.tables import (
    ABSENT,
    interval_columns,
    measured_on,
    number,
    unit_of,
    with_interval,
    write_table,
)
from sae_repro.metrics import CLASSES, names_in
from sae_repro.metrics.labels import KEY, heading
from sae_repro.remarks import missed_on


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


def write_features(folder: Path, results: Sequence[Result], seed: int) -> None:
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
            "absorption rate: over the pairs of a parent concept and its child that are testable "
            "in the cell's own SAEs (structure_common compares cells on common pairs). A hole "
            "rate below 0: the parent's latents are silent less often on the child than on the "
            f"parent's {unit_of(results[0])} without a large child. Childless recall: how well the "
            "parent's latents find it where no child is. Max correlation: with SAEs of that width, "
            "and its null. A dash: not measured, or nothing to measure."
        )
        write_table(folder, "structure", frame, caption, _printed(results, present))
        _write_common(folder, results, seed)


def _write_common(folder: Path, results: Sequence[Result], seed: int) -> None:
    """structure_common: cells of one hook, width and target L0 on what is testable in all."""
    rows = []
    for metric in names_in("findings: at equal target L0"):
        if metric not in COMMON:
            continue
        for (hook, width, l0), group in _at_targets(results, metric).items():
            if len(group) < 2:
                continue
            common = common_pairs(group, [r.name for r in group], metric, seed)
            if common.units == common.of:  # as in structure
                continue
            for r in group:
                if one := common.estimates.get(r.name):
                    low, high = one.interval
                    rows.append({
                        "hook": hook, "K": width, "target_l0": l0, "metric": metric,
                        "cell": r.name, "architecture": r.architecture, "seeds": len(r.saes),
                        "value": one.value, "low": low, "high": high,
                        "over_own": r.metrics[metric], "common": common.units, "any": common.of,
                    })  # fmt: skip
    if not rows:
        return
    frame = pd.DataFrame(rows)
    printed = pd.DataFrame(
        {
            "hook": frame["hook"],
            "K": frame["K"],
            "target L0": [f"{l0:g}" for l0 in frame["target_l0"]],
            "metric": [heading(metric) for metric in frame["metric"]],
            "cell": frame["cell"],
            "over common": [
                with_interval(value, (low, high))
                for value, low, high in zip(
                    frame["value"], frame["low"], frame["high"], strict=True
                )
            ],
            "over its own": [number(value) for value in frame["over_own"]],
            "common / any": [f"{row['common']} / {row['any']}" for row in rows],
        }
    )
    caption = (
        "# Structure on common ground\n\nCells of one hook, width and target L0, each metric over "
        "the pairs or concepts that are testable in every SAE of all of them, where that is not "
        f"all; {measured_on(results)} or the stated sample of them. Common / any: how many "
        "are, of those testable in at least one. Over its own: as in structure, over what is "
        "testable in the cell. Brackets: 95 % interval, over seeds where there are several, else "
        f"over parents or concepts. {KEY}."
    )
    write_table(folder, "structure_common", frame, caption, printed)


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
            row[heading(metric, of=unit_of(r))] = with_interval(
                r.metrics.get(metric), r.interval(metric)
            )
        rows.append(row)
    return pd.DataFrame(rows)


Target = tuple[str, int, float]
"""Hook, K, target L0."""


def _at_targets(results: Sequence[Result], metric: str) -> dict[Target, list[Result]]:
    """The trained cells that reached their target L0, one per architecture, by target."""
    groups: dict[Target, dict[str, Result]] = defaultdict(dict)
    for r in results:
        target = r.cell.l0_target
        if not r.ok or r.negative or target is None or estimate(r, metric) is None:
            continue
        if not missed_on(r.cell, r.measured):
            groups[r.hook, int(r.measured["d_sae"]), target][r.architecture] = r
    return {target: list(group.values()) for target, group in groups.items()}
