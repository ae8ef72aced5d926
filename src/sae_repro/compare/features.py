"""Monosemanticity and structure of every cell: tables, and the sentences that follow from them.

Tables hold each value with its interval and denominators. Sentences are generated from intervals,
and claim a difference only where several seeds of both show it (`compare.differences`).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.common_pairs import COMMON, PAIRS, common_pairs
from sae_repro.compare.differences import (
    DIFFERENT,
    NOT_DISTINGUISHABLE,
    ONE_SEED,
    Estimate,
    estimate,
    verdict,
)
from sae_repro.compare.tables import (
    ABSENT,
    interval_columns,
    measured_on,
    number,
    with_interval,
    write_table,
)
from sae_repro.metrics import CLASSES, names_in
from sae_repro.metrics.labels import KEY, heading
from sae_repro.numerics.multiplicity import benjamini_hochberg, p_above_zero
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
            "parent's tokens without a large child. Childless recall: how well the parent's "
            "latents find it where no child is. Max correlation: with SAEs of that width, and its "
            "null. A dash: not measured, or nothing to measure."
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
            row[heading(metric)] = with_interval(r.metrics.get(metric), r.interval(metric))
        rows.append(row)
    return pd.DataFrame(rows)


def sentences(results: Sequence[Result], seed: int) -> Iterator[str]:
    """Sentences on what was observed and what was not, no stronger than the intervals."""
    trained = [r for r in results if r.ok and not r.negative]
    yield from _against_controls(trained, [r for r in results if r.ok and r.negative])
    for metric in names_in("findings: above 0"):
        yield from _above_zero(trained, metric)
    for metric in names_in("findings: at equal target L0"):
        yield from _at_equal_target_l0(trained, metric, seed)


def _against_controls(trained: Sequence[Result], controls: Sequence[Result]) -> Iterator[str]:
    for metric in names_in("findings: against controls"):
        cells = [value for r in trained if (value := estimate(r, metric))]
        for control in controls:
            base = estimate(control, metric)
            if base is None or not cells:
                continue
            if not base.known:
                yield (
                    f"{metric}: {base.cell} reaches {base} with {ONE_SEED}: no cell is called "
                    "above or below it."
                )
                continue
            says = {c.cell: verdict(c, base) for c in cells}
            distinct = [c for c in cells if says[c.cell] == DIFFERENT]
            above = [c for c in distinct if c.value > base.value]
            below = [c.cell for c in distinct if c.value < base.value]
            single = [name for name, said in says.items() if said == ONE_SEED]
            unclear = [name for name, said in says.items() if said == NOT_DISTINGUISHABLE]
            several = len(cells) - len(single)
            yield (
                f"{metric}: {base.cell} reaches {base}; {len(above)} of {several} trained cells "
                f"with several seeds are above it; not distinguishable: {_listed(unclear)}; below: "
                f"{_listed(below)}"
                + (f"; {ONE_SEED}, nothing claimed: {len(single)}." if single else ".")
            )


def _above_zero(trained: Sequence[Result], metric: str) -> Iterator[str]:
    cells = [value for r in trained if (value := estimate(r, metric))]
    if not cells:
        return
    p = [
        p_above_zero(c.value, c.interval, len(c.by_seed) if len(c.by_seed) > 1 else None)
        for c in cells
    ]
    holds = benjamini_hochberg(p)
    positive = [c for c, above in zip(cells, holds, strict=True) if above]
    alone = sum(value < 0.05 for value in p) - len(positive)
    corrected = f"all {len(cells)} tested together, 5 % false discoveries"
    only = f"; {alone} more by their own intervals alone" if alone else ""
    if not positive:
        yield f"{metric}: not observed above 0 in any cell ({corrected}{only})."
    else:
        named = "; ".join(f"{c.cell} {c}{'' if c.known else f', {ONE_SEED}'}" for c in positive)
        yield (
            f"{metric}: above 0 in {len(positive)} of {len(cells)} cells ({corrected}{only}): "
            f"{named}; in the others not observed."
        )


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


def _at_equal_target_l0(trained: Sequence[Result], metric: str, seed: int) -> Iterator[str]:
    for (hook, width, l0), group in _at_targets(trained, metric).items():
        if len(group) < 2:
            continue
        subject = f"{metric} at target L0 = {l0:g}, K = {width}, {hook}"
        if metric in COMMON:
            common = common_pairs(group, [r.name for r in group], metric, seed)
            if not common.units:
                yield f"{subject}: nothing is testable in all {len(group)} cells."
                continue
            kind = "pairs" if metric in PAIRS else "concepts"
            subject += f", over the {common.units} {kind} testable in all"
            of_cell = common.estimates
        else:
            of_cell = {r.name: value for r in group if (value := estimate(r, metric))}
        values = {r.architecture: of_cell[r.name] for r in group}
        known = [name for name, value in values.items() if value.known]
        single = [f"{name} {value}" for name, value in values.items() if not value.known]
        parts = [_pairs({name: values[name] for name in known})] if len(known) > 1 else []
        if single:
            parts.append(f"{ONE_SEED}, no difference is claimed: {', '.join(single)}")
        yield f"{subject}: {'; '.join(parts)}."


def _pairs(values: Mapping[str, Estimate]) -> str:
    """Which of the architectures differ, and how many pairs do not."""
    pairs = [_ordered(pair, values) for pair in combinations(values, 2)]
    different = [
        f"{low} {values[low]} below {high} {values[high]}"
        for low, high in pairs
        if verdict(values[low], values[high]) == DIFFERENT
    ]
    if not different:
        return f"{', '.join(values)} not distinguishable"
    undecided = len(pairs) - len(different)
    rest = [f"the other {undecided} pairs are not distinguishable"] if undecided else []
    return "; ".join(different + rest)


def _ordered(pair: tuple[str, str], values: Mapping[str, Estimate]) -> tuple[str, str]:
    a, b = pair
    return (a, b) if values[a].value <= values[b].value else (b, a)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else ABSENT
