"""The verdict: which SAE to use, and whether its features can be believed, with the table behind.

A row per architecture at each matched L0; every number with its interval, the best ones marked
where the difference to all others holds (`compare.standings`). Sentences in `compare.answers`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_repro.compare.answers import answers, listed
from sae_repro.compare.collect import Result
from sae_repro.compare.matched import Matched
from sae_repro.compare.ranking import METRICS, SATURATED, Ranking
from sae_repro.compare.standings import Standing
from sae_repro.compare.tables import ABSENT, measured_on, number, with_interval
from sae_repro.files import write_text
from sae_repro.metrics.labels import KEY, heading
from sae_repro.numerics.intervals import Interval
from sae_repro.remarks import TOLERANCE

COST = "training (TFLOP)"
LEAST = 5e-5
"""Smaller numbers are printed as 0."""


def write_verdict(
    folder: Path, results: Sequence[Result], found: Sequence[Ranking], flagged: frozenset[str]
) -> None:
    """verdict.md and verdict.csv; nothing where no architecture is read at a target."""
    if not found:
        return
    records = list(_records(found, results))
    frame = pd.DataFrame(records).dropna(axis=1, how="all")
    write_text(folder / "verdict.csv", frame.to_csv(index=False, lineterminator="\n"))
    parts = ["# Verdict", *answers(found, results, flagged), _caption(results, flagged)]
    places = dict.fromkeys((r.hook, r.expansion) for r in found)
    compared = {(r.hook, r.expansion) for r in found if r.several} or set(places)
    for hook, expansion in places:
        here = [r for r in records if (r["hook"], r["expansion"]) == (hook, expansion)]
        if (hook, expansion) in compared:
            parts += [f"## {hook}, {expansion:g}×", _printed(here)]
    if alone := [f"{hook} at {x:g}×" for hook, x in places if (hook, x) not in compared]:
        parts.append(
            "In verdict.csv alone, as no two architectures have several seeds there: "
            f"{listed(alone)}."
        )
    write_text(folder / "verdict.md", "\n\n".join(parts) + "\n")


def _caption(results: Sequence[Result], flagged: frozenset[str]) -> str:
    left_out = ", ".join(f"`{name}`" for name in METRICS if name in flagged)
    return (
        f"On {measured_on(results)}, at equal L0. Brackets: 95 % interval, of FVU, KL and CE over "
        "seeds and documents, of the others over seeds and what they are measured on. **Bold**: "
        "better than every architecture that is not bold at this L0; the difference leaves out 0 "
        "over seeds and documents after Holm's correction for all pairs. No bold number in a "
        "column: undecided. KL leads: CE recovered is not ranked where every architecture reaches "
        f"{SATURATED}. An SAE is named above if no other is better in one of KL and FVU (on unseen "
        "prefixes, where they are known), monosemantic latents, features found again by another "
        "seed, and holes, and worse in none. A "
        "difference that longer training turned, where that was tried, is undecided. Controls are "
        "for reference, at the L0 that they reach. "
        + (f"Shown but not used, as they do not tell trained cells from controls: {left_out}. "
           if left_out else "")
        + f"{KEY}. verdict.csv has every number; METRICS.md defines them."
    )  # fmt: skip


def _records(found: Sequence[Ranking], results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    controls = [r for r in results if r.ok and r.negative]
    places = dict.fromkeys((r.hook, r.expansion) for r in found)
    for hook, expansion in places:
        for ranking in (r for r in found if (r.hook, r.expansion) == (hook, expansion)):
            best = {name: ranking.best(name) for name in ranking.standings}
            # of one seed nothing is claimed: such rows stand only where there are no others
            for m in [m for m in ranking.rows if m.several] or ranking.rows:
                yield _row(ranking, m, best)
            for m in ranking.other_lengths:
                if m.several or not ranking.several:
                    yield _row(ranking, m, {})
        targets = [r.target for r in found if (r.hook, r.expansion) == (hook, expansion)]
        for r in controls:
            if (r.hook == hook or r.hook.endswith(f"/{hook}")) and _is_shown(r, targets):
                yield {"hook": hook, "expansion": expansion, "target_l0": None,
                       "architecture": r.architecture, "control": r.name, "seeds": len(r.saes),
                       "l0": r.metrics.get("l0"), **_columns(r.metrics, r.interval, r.metrics, {}),
                       "parameters": None, "training_operations": None}  # fmt: skip


def _is_shown(control: Result, targets: Sequence[float]) -> bool:
    """Whether it is a basis, or about as sparse as some target."""
    l0 = control.metrics.get("l0") or 0.0
    return control.cell.is_basis or any(abs(l0 / at - 1) <= TOLERANCE for at in targets)


def _row(ranking: Ranking, m: Matched, best: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    standings = {name: Standing(m, name) for name in METRICS}
    standings |= {name: s for name, of in ranking.standings.items() for s in of if s.of is m}
    nearest = m.nearest
    values = {name: standing.value for name, standing in standings.items()}
    marked = {name: m.frontier.family in names for name, names in best.items()}
    return {
        "hook": ranking.hook,
        "expansion": ranking.expansion,
        "target_l0": ranking.target,
        "architecture": m.frontier.label,
        "control": None,
        "seeds": m.seeds,
        "l0": nearest.metrics["l0"],
        **_columns(values, lambda name: standings[name].bounds, nearest.metrics, marked),
        "parameters": nearest.size[0] if nearest.size else None,
        "training_operations": nearest.training_operations,
    }


def _columns(
    values: Mapping[str, float | None],
    bounds: Any,
    nulls: Mapping[str, float | None],
    marked: Mapping[str, bool],
) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name in METRICS:
        value = values.get(name)
        if value is None or not np.isfinite(value):
            columns |= dict.fromkeys((name, f"{name}_low", f"{name}_high", f"{name}_null"))
            continue
        low, high = bounds(name) or (None, None)
        columns |= {name: value, f"{name}_low": low, f"{name}_high": high}
        columns |= {f"{name}_null": nulls.get(f"{name}_null"), f"{name}_best": marked.get(name)}
    return columns


def _printed(records: Sequence[Mapping[str, Any]]) -> str:
    shown = [name for name in METRICS if any(r.get(name) is not None for r in records)]
    several = len({r["seeds"] for r in records}) > 1
    lines = []
    for r in records:
        l0 = f"{r['target_l0']:g}" if r["target_l0"] is not None else number(r["l0"])
        line = {"L0": l0, "architecture": r["architecture"]}
        if r["control"] is not None:
            line["architecture"] = f"*control: {r['architecture']}*"
        if several:
            line["seeds"] = str(r["seeds"])
        line |= {heading(name): _cell(r, name) for name in shown}
        operations = r["training_operations"]
        line[COST] = ABSENT if operations is None else number(operations / 1e12)
        lines.append(line)
    return str(pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True))


def _cell(record: Mapping[str, Any], name: str) -> str:
    value, low, high = (_rounded(record.get(f"{name}{end}")) for end in ("", "_low", "_high"))
    bounds: Interval | None = None if low is None or high is None else (low, high)
    text = with_interval(value, bounds)
    if record.get(f"{name}_best"):
        text = f"**{text}**"
    null = record.get(f"{name}_null")
    return text if null is None else f"{text}; null {number(null)}"


def _rounded(value: float | None) -> float | None:
    """0 for what is left of it in reading between cells, or of rounding in a basis."""
    return 0.0 if value is not None and abs(value) < LEAST else value
