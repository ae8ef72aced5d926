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
    with_interval,
    write_table,
)
from sae_repro.metrics import CLASSES, names_in
from sae_repro.metrics.labels import KEY, heading
from sae_repro.numerics.intervals import differ
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


def sentences(results: Sequence[Result]) -> Iterator[str]:
    """Sentences on what was observed and what was not, no stronger than the intervals."""
    trained = [r for r in results if r.ok and not r.negative]
    yield from _against_controls(trained, [r for r in results if r.ok and r.negative])
    for metric in names_in("findings: above 0"):
        yield from _above_zero(trained, metric)
    for metric in names_in("findings: at equal target L0"):
        yield from _at_equal_target_l0(trained, metric)


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
    positive = [c for c in cells if differ(c.interval, (0.0, 0.0)) and c.value > 0]
    if not positive:
        yield f"{metric}: not observed; no interval of {len(cells)} cells excludes 0."
    else:
        named = "; ".join(f"{c.cell} {c}{'' if c.known else f', {ONE_SEED}'}" for c in positive)
        yield (
            f"{metric}: above 0 in {len(positive)} of {len(cells)} cells ({named}); in the others "
            "not observed."
        )


def _at_equal_target_l0(trained: Sequence[Result], metric: str) -> Iterator[str]:
    groups: dict[tuple[str, int, float], dict[str, Estimate]] = defaultdict(dict)
    for r in trained:
        value = estimate(r, metric)
        target = r.cell.l0_target
        if value and target is not None and not missed_on(r.cell, r.measured):  # it was reached
            groups[r.hook, int(r.measured["d_sae"]), target][r.architecture] = value
    for (hook, width, l0), values in groups.items():
        if len(values) < 2:
            continue
        subject = f"{metric} at target L0 = {l0:g}, K = {width}, {hook}"
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
