"""Tables as files: CSV for machines, Markdown for people, each with its denominators."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.latex import write_latex
from sae_repro.files import write_text
from sae_repro.metrics import names_in
from sae_repro.metrics.labels import KEY, heading
from sae_repro.numerics.bootstrap import LEAST_UNITS
from sae_repro.numerics.intervals import Interval
from sae_repro.params import GIVEN

ABSENT = "—"
MOST_COLUMNS = 12
"""Of the table of cells as people read it."""


def write_table(
    folder: Path,
    name: str,
    frame: pd.DataFrame,
    caption: str,
    shown: pd.DataFrame | None = None,
    *,
    latex: bool = False,
) -> None:
    """`name`.csv in full precision, `name`.md with `caption` over `shown` (or `frame`).

    `latex`: `name`.tex with the same as `name`.md.
    """
    write_text(folder / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
    table = frame if shown is None else shown
    body = table.to_markdown(index=False, disable_numparse=True)
    write_text(folder / f"{name}.md", f"{caption}\n\n{body}\n")
    if latex:
        write_latex(folder, name, table, caption)


def number(value: object, digits: int = 3) -> str:
    """A number for reading, to three significant digits; an absent one as a dash.

    From 1,000 on it is whole; below 1e-4 the exponent is written.
    """
    if value is None or value != value:
        return ABSENT
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.{digits}g}".rstrip(".")


def with_interval(value: float | None, bounds: Interval | None) -> str:
    """`0.0564 [0.0552, 0.0577]`; the value alone where it has no interval."""
    if bounds is None or value is None or value != value or bounds[0] != bounds[0]:
        return number(value)
    low, high = (number(float(bound)) for bound in bounds)
    return f"{number(value)} [{low}, {high}]"


def unit_of(r: Result) -> str:
    """What an SAE reads one of at a time: tokens of a language model, or rows that were given."""
    return "rows" if r.hook == GIVEN else "tokens"


def unit_in(results: Sequence[Result]) -> str:
    """`unit_of` the SAEs of a study, which all read the same."""
    return unit_of(results[0]) if results else "tokens"


def measured_on(results: Sequence[Result]) -> str:
    """The data behind the numbers: "100,000 held-out tokens of 1,953 documents".

    Rows, where activations were given. And, of a handful of documents, that there are no intervals
    over them.
    """
    first = next((r for r in results if r.ok), None)
    if first is None:
        return "no cell finished"
    counts = first.measured["counts"]
    tokens, documents = counts["tokens"], counts["documents"]
    few = f" (too few for intervals over them: at least {LEAST_UNITS})"
    return f"{tokens:,} held-out {unit_of(first)} of {documents:,} documents" + (
        few if documents < LEAST_UNITS else ""
    )


def cells_table(results: Sequence[Result]) -> pd.DataFrame:
    """Every cell with its choices, all its metrics, and their denominators.

    Of a cell with several seeds: means over those that finished, `<metric>_sd`, and the counts in
    which its SAEs agree; the table of seeds has the rest. The headline metrics have their 95 %
    interval beside them, `<metric>_low` and `<metric>_high`. Last are the size of a training
    (`params.operations`; of one SAE, where there are several seeds) and what there is to say.
    """
    rows = []
    measured = {name for r in results for name in r.metrics}
    sizes = ("parameters", "flops_per_step")
    with_interval = [name for name in names_in("metrics.json") if name in measured]
    for r in results:
        rows.append(
            {
                "cell": r.name,
                "status": r.measured["status"],
                "architecture": r.architecture,
                "negative_control": "yes" if r.negative else "no",
                "hook": r.hook,
                "K": r.measured["d_sae"],
                "expansion": r.expansion,
                "activation": r.choices["activation"],
                "k": r.choices.get("k"),
                "penalty": r.choices.get("penalty"),
                "lambda": r.choices.get("lambda"),
                "prefixes": r.choices.get("prefixes"),
                "revival": r.choices.get("revival"),
                "target_l0": r.cell.l0_target,
                "training_tokens": r.trained_tokens,
                "input_offset": r.measured.get("input_offset"),
                "seeds": len(r.members),
                **r.metrics,
                **{f"{name}_sd": value for name, value in r.sd.items()},
                **interval_columns(r, with_interval),
                **r.measured["counts"],
                **dict(zip(sizes, r.size or (None, None), strict=True)),
                "remarks": "; ".join(r.remarks) or None,
                "reason": r.measured.get("reason"),
            }
        )
    frame = pd.DataFrame(rows)
    # what a cell lacks must not make the others' counts floats
    count_columns = {
        "k",
        "training_tokens",
        *sizes,
        *(name for r in results for name in r.measured["counts"]),
    }
    for column in count_columns:
        frame[column] = frame[column].astype("Int64")
    last = frame[[*sizes, "remarks", "reason"]]
    return pd.concat([frame.drop(columns=list(last)), last], axis=1)


def interval_columns(r: Result, metrics: Sequence[str]) -> dict[str, float | None]:
    """`<metric>_low` and `<metric>_high` of each; None where there is no interval."""
    columns: dict[str, float | None] = {}
    for metric in metrics:
        low, high = r.interval(metric) or (None, None)
        columns |= {f"{metric}_low": low, f"{metric}_high": high}
    return columns


def headline(r: Result) -> dict[str, float | None]:
    """A cell's entry of reports/metrics.json: the headline metrics, each with its interval's ends.

    What was not measured, or has no interval, is left out, as `dvc metrics` compares numbers.
    """
    entry: dict[str, float | None] = {}
    for metric in names_in("metrics.json"):
        if r.metrics.get(metric) is not None:
            entry[metric] = r.metrics[metric]
            entry |= {name: end for name, end in interval_columns(r, [metric]).items()
                      if end is not None}  # fmt: skip
    return entry


def write_cells(folder: Path, results: Sequence[Result], seed: int) -> None:
    """cells.csv and cells.md, and of cells with several seeds the SAEs: seeds.csv and seeds.md."""
    failed = [f"{r.name}: {r.measured['reason']}" for r in results if "reason" in r.measured]
    counts: dict[str, int] = next((r.measured["counts"] for r in results if r.ok), {})
    targets = counts.get("fidelity_tokens", 0)  # none where nothing runs a language model
    fidelity = f"; cross-entropies on {targets:,} targets" if targets else ""
    caption = (
        f"# All cells\n\nMeasured on {measured_on(results)}{fidelity}. Fractions of latents are "
        f"over K. Seed {seed}. Target L0: what k or target_l0 sets; L0: what is reached here. "
        f"{KEY}. cells.csv has all choices and metrics (`<metric>`; `_sd` over seeds; `_low` and "
        "`_high`, the 95 % interval), every count that is a denominator, and the trained "
        "parameters and operations of a training step; METRICS.md defines each metric and names "
        "its denominator."
    )
    if any(len(r.members) > 1 for r in results):
        caption += " Of cells with several seeds: mean ± standard deviation over their SAEs."
    if failed:
        caption += "\n\n**Failed:** " + "; ".join(failed)
    frame = cells_table(results)
    write_table(folder, "cells", frame, caption, _printed(results, frame), latex=True)
    members = [member for r in results if len(r.members) > 1 for member in r.members]
    if members:
        frame = cells_table(members)
        caption = (
            "# Seeds\n\nThe SAEs of cells with several seeds, one by one. Study seed "
            f"{seed}. {KEY}. seeds.csv has all metrics and counts, as cells.csv."
        )
        write_table(folder, "seeds", frame, caption, _printed(members, frame))


def _printed(results: Sequence[Result], frame: pd.DataFrame) -> pd.DataFrame:
    """At most `MOST_COLUMNS` columns, the first of the registry's."""
    titles = {"cell": "cell", "K": "K", "target_l0": "target L0"}
    unit = unit_in(results)
    titles |= {name: heading(name, of=unit) for name in names_in("cells.md") if name in frame}
    printed = pd.DataFrame(
        {
            title: [_mean_and_sd(row, column) for row in frame.to_dict("records")]
            for column, title in list(titles.items())[: MOST_COLUMNS - 1]
        }
    )
    printed["cell"] = [_name_and_seeds(r) for r in results]
    targets = [r.cell.l0_target for r in results]
    printed["target L0"] = [ABSENT if target is None else f"{target:g}" for target in targets]
    if any(r.remarks for r in results):
        printed["remarks"] = ["; ".join(r.remarks) or ABSENT for r in results]
    return printed


def _name_and_seeds(r: Result) -> str:
    finished, seeds = len(r.saes), len(r.members)
    if seeds == 1:
        return r.name
    return f"{r.name} ({finished if finished == seeds else f'{finished} of {seeds}'} seeds)"


def _mean_and_sd(row: Mapping[Hashable, Any], column: str) -> str:
    sd = number(row.get(f"{column}_sd"), 2)
    return number(row[column]) + ("" if sd == ABSENT else f" ± {sd}")
