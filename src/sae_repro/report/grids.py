"""The published grid's layout: λ by width, without resampling, with it, and the difference."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from sae_repro.report.parts import Maker, Table, Value, printed, read_table


def grids(maker: Maker) -> Iterator[Table]:
    """Without resampling, with it, and the difference: λ by width, beside the published numbers."""
    published = read_table(maker.tables, "published")
    judged = read_table(maker.tables, "judged")
    parts = (
        ("dead_fraction_below", "dead", "Dead as published: largest activation below threshold"),
        ("dead_fraction_never", "dead", "Latents that never fire"),
        ("judged", "extremes_rate", "Monosemantic of the most and least selective, by the judge"),
    )  # fmt: skip
    for name, column, text in parts:
        frame = judged if name == "judged" else read_table(maker.tables, name)
        if not frame.empty:
            yield _grid(maker, name, frame, column, text)
    for frame, name, column, text in (
        (published, "published", "published_gpt2_dead", "Published dead fraction: GPT-2 small"),
        (judged, "judged", "published_gpt2_monosemantic", "Published monosemantic: GPT-2 small"),
    ):
        if not frame.empty and frame[column].notna().any():
            yield _grid(maker, name, frame, column, f"{text}, another model and corpus")


def _grid(maker: Maker, name: str, frame: pd.DataFrame, column: str, text: str) -> Table:
    widths = sorted(frame["expansion"].unique())
    blocks = [*frame["block"].unique()]
    found = {(r["block"], r["lambda"], r["expansion"]): r for r in frame.to_dict("records")}
    lambdas = [*frame["lambda"].unique()]
    rows = [
        [Value(block), Value(f"{weight:g}"),
         *(_grid_value(maker, name, found.get((block, weight, k)), column) for k in widths)]
        for block in blocks for weight in lambdas
    ]  # fmt: skip
    if len(blocks) == 2:
        for weight in lambdas:
            pairs = [[found.get((block, weight, k)) for block in blocks] for k in widths]
            rows.append([Value(f"{blocks[1]} − {blocks[0]}"), Value(f"{weight:g}"),
                         *(_difference(maker, name, pair, column) for pair in pairs)])  # fmt: skip
    return Table(text, ["", "λ", *(f"{k:g}×" for k in widths)], rows)


def _grid_value(maker: Maker, name: str, row: Mapping[Any, Any] | None, column: str) -> Value:
    if row is None or row[column] != row[column]:
        return Value(printed(None))
    if column.startswith("published"):
        return maker.number(name, row[column])
    prefix = "" if column == "dead" else column.replace("rate", "")
    interval = row.get(f"{prefix}low"), row.get(f"{prefix}high")
    return maker.number(name, row[column], interval, (row.get("cell", ""),))


def _difference(
    maker: Maker, name: str, pair: Sequence[Mapping[Any, Any] | None], column: str
) -> Value:
    first, second = (row[column] if row is not None else float("nan") for row in pair)
    difference = second - first
    if difference != difference:
        return Value(printed(None))
    several = all(row is not None and row.get("seeds", 1) > 1 for row in pair)
    remark = "" if several or column.startswith("published") else "(one seed)"
    cells = () if column.startswith("published") else [row["cell"] for row in pair if row]
    found = maker.number(name, difference, (None, None), cells)
    return replace(
        found, text=f"{difference:+.3g}", interval=remark, full=f"{second} − {first} = {difference}"
    )
