"""What the features mean: monosemanticity and structure of every cell, and what may be said of it.

Tables hold each value with its interval and denominators. Sentences are generated from intervals:
two cells are called different only where theirs have no point in common.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.tables import ABSENT, measured_on, number, write_table
from sae_repro.numerics.intervals import Interval, differ

CLASSES = ("dead", "rare", "dense", "monosemantic_complete", "monosemantic_narrow", "polysemantic",
           "not_testable")  # fmt: skip
MONOSEMANTIC = ("monosemantic_fraction", "monosemantic_fraction_alive", "monosemantic_mean")
STRUCTURE = (
    "coverage",
    "hole_rate",
    "absorption_rate",
    "childless_recall",
    "splitting_mean",
    "fragmented_fraction",
    "recall_at_p80_mean",
    "probe_auc_1",
    "probe_auc_5",
    "probe_loss",
    "decoder_max_cosine",
    "decoder_near_copy_fraction",
    "description_length",
    "explainability_ngram_precision",
    "explainability_ngram_recall",
    "ablation_sparsity",
)
CORRELATION, NULL = "mean_max_correlation_", "mean_max_correlation_null_"
AGAINST_CONTROLS = ("monosemantic_fraction_alive", "coverage", "probe_auc_1")
ABOVE_NOTHING = ("hole_rate", "absorption_rate", "fragmented_fraction",
                 "decoder_near_copy_fraction")  # fmt: skip
AT_EQUAL_L0 = ("monosemantic_fraction_alive", "coverage", "hole_rate", "absorption_rate",
               "splitting_mean", "description_length")  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A cell's value of a metric, with its 95 % interval."""

    cell: str
    value: float
    interval: Interval

    def __str__(self) -> str:
        low, high = self.interval
        return f"{number(self.value, 3)} [{number(low, 3)}, {number(high, 3)}]"


def known(result: Result, metric: str) -> Known | None:
    """The metric where it was measured and has an interval; else None."""
    value = result.metrics.get(metric)
    interval = result.measured["intervals"].get(metric) if result.ok else None
    return None if value is None or interval is None else Known(result.name, value, interval)


def features_table(results: Sequence[Result], metrics: Sequence[str]) -> pd.DataFrame:
    """A row per cell: its name, family, and each metric with `_low` and `_high`."""
    rows = []
    for r in results:
        row: dict[str, object] = {"cell": r.name, "family": r.family, "hook": r.hook,
                                  "l0": r.metrics.get("l0")}  # fmt: skip
        for metric in metrics:
            low, high = (r.measured["intervals"].get(metric) if r.ok else None) or (None, None)
            row |= {metric: r.metrics.get(metric), f"{metric}_low": low, f"{metric}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def write_features(folder: Path, results: Sequence[Result]) -> None:
    """monosemantic and structure, as far as they were measured."""
    measured = {name for r in results for name in r.metrics}
    if measured & set(MONOSEMANTIC):
        _write_monosemantic(folder, results)
    widths = sorted(int(name.removeprefix(CORRELATION)) for name in measured
                    if name.startswith(CORRELATION) and not name.startswith(NULL))  # fmt: skip
    correlations = [f"{part}{width}" for width in widths for part in (CORRELATION, NULL)]
    present = [name for name in STRUCTURE if name in measured] + correlations
    if present:
        frame = features_table(results, present)
        caption = (
            f"# Structure\n\nMeasured on {measured_on(results)} or the stated sample of them; "
            "cells.csv has every denominator. Brackets: 95 % interval. hole_rate and "
            "absorption_rate: over testable pairs of a parent concept and its child; childless_"
            "recall: how well the parent's latents find it where no child is; mean_max_correlation "
            "with SAEs of that width, and its null. A dash: not measured, or nothing to measure."
        )
        write_table(folder, "structure", frame, caption, _shown(results, present))


def _write_monosemantic(folder: Path, results: Sequence[Result]) -> None:
    frame = features_table(results, MONOSEMANTIC)
    counts = pd.DataFrame(
        [
            {name: _count(r, name) for name in ("latents", "latents_alive")}
            | {name: _count(r, f"latents_{name}") for name in CLASSES}
            for r in results
        ]
    ).astype("Int64")
    text = counts.map(lambda count: ABSENT if pd.isna(count) else f"{count:,}")
    shown = pd.concat([_shown(results, MONOSEMANTIC), text], axis=1)
    caption = (
        f"# Monosemanticity\n\nEach latent against the concept bank, on {measured_on(results)}: "
        "concept and threshold chosen on one half of the documents, scored on the other. "
        "Monosemantic: M ≥ .7 (complete: φ ≥ .7 too; narrow: not). Brackets: 95 % interval. The "
        "last cells are negative controls if the study has them: what scores there like a trained "
        "SAE measures nothing."
    )
    write_table(folder, "monosemantic", pd.concat([frame, counts], axis=1), caption, shown)


def _count(result: Result, name: str) -> int | None:
    """The count, summed over the SAEs of a cell with several seeds."""
    found = [sae.measured["counts"].get(name) for sae in result.saes]
    return sum(found) if found and None not in found else None


def _shown(results: Sequence[Result], metrics: Sequence[str]) -> pd.DataFrame:
    rows = []
    for r in results:
        row = {"cell": r.name}
        for metric in metrics:
            found = known(r, metric)
            row[metric] = str(found) if found else number(r.metrics.get(metric), 3)
        rows.append(row)
    return pd.DataFrame(rows)


def sentences(results: Sequence[Result]) -> Iterator[str]:
    """What holds and what was not observed, no stronger than the intervals."""
    trained = [r for r in results if r.ok and not r.negative]
    yield from _against_controls(trained, [r for r in results if r.ok and r.negative])
    for metric in ABOVE_NOTHING:
        yield from _above_nothing(trained, metric)
    for metric in AT_EQUAL_L0:
        yield from _at_equal_l0(trained, metric)


def _against_controls(trained: Sequence[Result], controls: Sequence[Result]) -> Iterator[str]:
    for metric in AGAINST_CONTROLS:
        cells = [found for r in trained if (found := known(r, metric))]
        for control in controls:
            base = known(control, metric)
            if base is None or not cells:
                continue
            apart = [c for c in cells if differ(c.interval, base.interval)]
            above = [c for c in apart if c.value > base.value]
            below = [c.cell for c in apart if c.value < base.value]
            unclear = [c.cell for c in cells if not differ(c.interval, base.interval)]
            yield (
                f"{metric}: {base.cell} reaches {base}; {len(above)} of {len(cells)} trained "
                f"cells are above it; not distinguishable: {_listed(unclear)}; below: "
                f"{_listed(below)}."
            )


def _above_nothing(trained: Sequence[Result], metric: str) -> Iterator[str]:
    cells = [found for r in trained if (found := known(r, metric))]
    if not cells:
        return
    seen = [f"{c.cell} {c}" for c in cells if differ(c.interval, (0.0, 0.0)) and c.value > 0]
    if not seen:
        yield f"{metric}: not observed; no interval of {len(cells)} cells excludes 0."
    else:
        yield (
            f"{metric}: above 0 in {len(seen)} of {len(cells)} cells ({'; '.join(seen)}); in the "
            "others not observed."
        )


def _at_equal_l0(trained: Sequence[Result], metric: str) -> Iterator[str]:
    groups: dict[tuple[str, int, float], dict[str, Known]] = defaultdict(dict)
    for r in trained:
        found = known(r, metric)
        if found and r.cell.asked_l0 is not None:
            groups[r.hook, int(r.measured["d_sae"]), r.cell.asked_l0][r.family] = found
    for (hook, width, l0), families in groups.items():
        if len(families) < 2:
            continue
        where = f"{metric} at asked L0 = {l0:g}, K = {width}, {hook}"
        different = [
            f"{low} {families[low]} below {high} {families[high]}"
            for low, high in (_ordered(pair, families) for pair in combinations(families, 2))
            if differ(families[low].interval, families[high].interval)
        ]
        pairs = len(families) * (len(families) - 1) // 2
        if different:
            rest = pairs - len(different)
            yield f"{where}: {'; '.join(different)}" + (
                f"; the other {rest} pairs are not distinguishable." if rest else "."
            )
        else:
            yield f"{where}: {', '.join(families)} not distinguishable."


def _ordered(pair: tuple[str, str], families: Mapping[str, Known]) -> tuple[str, str]:
    a, b = pair
    return (a, b) if families[a].value <= families[b].value else (b, a)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else ABSENT
