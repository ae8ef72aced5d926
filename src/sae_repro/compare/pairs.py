"""Pairs of architectures at matched L0: FVU of one minus FVU of the other, and which is lower.

`a_is` is corrected for the pairs of one hook, width, training length and target (Holm): with 21
pairs, one in 20 would else be called different where none is. Intervals are not corrected.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_repro.compare.differences import NOT_DISTINGUISHABLE, ONE_SEED
from sae_repro.compare.matched import Matched
from sae_repro.files import write_text
from sae_repro.numerics.bootstrap import interval
from sae_repro.numerics.multiplicity import LEVEL, holm
from sae_repro.numerics.seeds import half_width, p_value, parts

Place = tuple[str, float, float, int | None]
"""Hook, expansion, target L0, training tokens: what is compared has these in common."""


def by_place(rows: Sequence[Matched]) -> dict[Place, list[Matched]]:
    """The frontiers that are read, grouped by where they may be compared."""
    groups: dict[Place, list[Matched]] = defaultdict(list)
    for m in rows:
        if m.reading.readable:
            f = m.frontier
            groups[f.hook, f.expansion, m.target, f.tokens].append(m)
    return dict(groups)


def pairs_table(rows: Sequence[Matched]) -> pd.DataFrame:
    """A row per pair of frontiers of one hook, width and training length where both are read."""
    table = []
    for group in by_place(rows).values():
        pairs = list(combinations(group, 2))
        adjusted = holm({n: _p(a, b) for n, (a, b) in enumerate(pairs)})
        table += [_pair(a, b, adjusted[n]) for n, (a, b) in enumerate(pairs)]
    return pd.DataFrame(table)


def _p(a: Matched, b: Matched) -> float:
    if not (a.several and b.several):
        return float("nan")
    error = float(np.hypot(a.error, b.error))
    return p_value(a.fvu - b.fvu, *parts(a.fvus, b.fvus, documents=a.documents), error=error)


def _pair(a: Matched, b: Matched, p: float) -> dict[str, Any]:
    low, high = _bounds(a, b)
    return {
        "hook": a.frontier.hook,
        "expansion": a.frontier.expansion,
        "target_l0": a.target,
        "a": a.frontier.label,
        "b": b.frontier.label,
        "fvu_a_minus_b": a.fvu - b.fvu,
        "low": low,
        "high": high,
        "p_holm": p,
        "a_is": _verdict(a, b, p),
        "interval_over": min(a, b, key=lambda m: m.seeds).over,
        "seeds_a": a.seeds,
        "seeds_b": b.seeds,
    }


def _bounds(a: Matched, b: Matched) -> tuple[float, float]:
    """95 % interval of the difference of FVU, the errors of both lines in it."""
    difference, error = a.fvu - b.fvu, np.hypot(a.error, b.error)
    if a.several and b.several:
        half = float(half_width(a.fvus, b.fvus, documents=a.documents))
        ends = [difference - half, difference + half]
    else:
        # over the same documents: paired, so known better than a or b
        ends = interval(a.fvus.mean - b.fvus.mean) or [np.nan, np.nan]
    below, above = (float(np.hypot(end - difference, error)) for end in ends)
    return difference - below, difference + above


def _verdict(a: Matched, b: Matched, p: float) -> str:
    if not (a.several and b.several):
        return ONE_SEED
    if not p < LEVEL:
        return NOT_DISTINGUISHABLE
    return "lower" if a.fvu < b.fvu else "higher"


MIRRORED = {"lower": "higher", "higher": "lower"}
SHORT = {NOT_DISTINGUISHABLE: "undecided"}


def write_pairs(folder: Path, pairs: pd.DataFrame) -> None:
    """matched_l0_pairs.csv, a row per pair, and .md, a matrix per hook, width and target."""
    caption = (
        "# Pairs at matched L0\n\nIs the FVU of the row lower or higher than that of the column, "
        "on the same documents? Only where the interval of the difference over seeds and "
        "documents, the errors of both lines in it, leaves out 0 after Holm's correction for the "
        "pairs of the matrix; else it is undecided. Of one seed no difference is claimed. "
        "Differences with their 95 % intervals: matched_l0_pairs.csv."
    )
    if not len(pairs):
        write_text(folder / "matched_l0_pairs.csv", "")
        write_text(folder / "matched_l0_pairs.md", f"{caption}\n\nNo pair is read at a target.\n")
        return
    csv = pairs.to_csv(index=False, lineterminator="\n")
    write_text(folder / "matched_l0_pairs.csv", csv)
    matrices = "\n".join(f"{title}\n\n{body}\n" for title, body in _matrices(pairs))
    write_text(folder / "matched_l0_pairs.md", f"{caption}\n\n{matrices}")


def _matrices(pairs: pd.DataFrame) -> Iterator[tuple[str, str]]:
    for (hook, x, target), group in pairs.groupby(["hook", "expansion", "target_l0"], sort=False):
        names = list(dict.fromkeys([*group["a"], *group["b"]]))
        said: Mapping[tuple[str, str], str] = {
            **dict(zip(zip(group["b"], group["a"], strict=True),
                       (MIRRORED.get(v, v) for v in group["a_is"]), strict=True)),
            **dict(zip(zip(group["a"], group["b"], strict=True), group["a_is"], strict=True)),
        }  # fmt: skip
        frame = pd.DataFrame(
            [["" if a == b else SHORT.get(v := said.get((a, b), ""), v) for b in names]
             for a in names], columns=names,
        )  # fmt: skip
        frame.insert(0, "row is … than column", names)
        body = frame.to_markdown(index=False, disable_numparse=True)
        yield f"## L0 = {target:g}, {x:g}×, {hook}", str(body)
