"""Closing lines of a comparison: the lowest FVU at each matched L0, and where the reports are.

It reads the tables that were written, and is no stronger than they are: architectures that the
paired intervals do not tell from the lowest are named beside it, and what has one seed is no lower.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.differences import NOT_DISTINGUISHABLE, ONE_SEED

NOTHING_CLAIMED = f"{ONE_SEED}, nothing claimed of"
AT = ["hook", "expansion", "target_l0"]


def closing_lines(reports: Path, results: Sequence[Result]) -> Iterator[str]:
    """The lines on `results`, whose tables are in the folder `reports`."""
    failed = [r.name for r in results if not r.ok]
    named = f", {len(failed)} failed: {', '.join(failed)}" if failed else ""
    yield f"compare: {len(results)} cells{named}"
    yield from lowest_lines(reports / "tables")
    yield f"compare: tables and findings in {reports}/tables, figures in {reports}/figures"


def lowest_lines(tables: Path) -> Iterator[str]:
    """A line per hook, expansion and target L0 with a value, from matched_l0.csv and its pairs."""
    frame, pairs = (_read(tables / f"{name}.csv") for name in ("matched_l0", "matched_l0_pairs"))
    # what trained for another length than most is compared with none of them
    valued = frame[frame["fvu"].notna() & frame["usual_length"]] if len(frame) else frame
    if not len(valued):
        yield "compare: no architecture has a value at a target of compare.matched_l0"
        return
    yield "compare: lowest FVU at matched L0, 95 % intervals as in matched_l0.md:"
    # pairs of another place are none of this one
    verdicts = {tuple(row[:5]): row[5] for row in pairs[[*AT, "a", "b", "a_is"]].to_numpy()}
    for place, group in valued.groupby(AT, sort=False):
        rows = group.sort_values("fvu", kind="stable")
        best, *others = rows["architecture"]
        says = {other: _verdict(verdicts, place, best, other) for other in others}
        notes = [
            f"; {verdict}: {', '.join(names)}"
            for verdict in (NOT_DISTINGUISHABLE, NOTHING_CLAIMED)
            if (names := [other for other, said in says.items() if said == verdict])
        ]
        if not others:
            notes = ["; no other architecture has a value here"]
        yield f"  {_at(rows.iloc[0])}{''.join(notes)}"


def _verdict(verdicts: dict[tuple[Any, ...], str], place: Any, best: str, other: str) -> str:
    """What the table of pairs says of `best`: lower, or why it is not called so."""
    says = verdicts.get((*place, best, other))
    turned = verdicts.get((*place, other, best))
    if says == "lower" or turned == "higher":
        return "lower"
    if ONE_SEED in (says, turned):
        return NOTHING_CLAIMED
    return NOT_DISTINGUISHABLE


def _at(row: "pd.Series[Any]") -> str:
    interval = "" if pd.isna(row["fvu_low"]) else f" [{row['fvu_low']:.4f}, {row['fvu_high']:.4f}]"
    place = f"{row['hook']}, {row['expansion']:g}×, L0 {row['target_l0']:g}"
    return f"{place}: {row['architecture']} {row['fvu']:.4f}{interval}"


def _read(path: Path) -> pd.DataFrame:
    """A table; without columns or rows where nothing could be compared."""
    empty = pd.DataFrame(columns=[*AT, "architecture", "fvu", "a", "b", "a_is"])
    if not path.is_file() or not path.read_text(encoding="utf-8").strip():
        return empty
    return pd.read_csv(path)
