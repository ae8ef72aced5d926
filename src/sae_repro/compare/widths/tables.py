"""The tables widths, widths_curve, widths_correlations, widths_equivalent and widths_trees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.tables import ABSENT, number, with_interval, write_table
from sae_repro.compare.widths.ladders import Ladder, ladders
from sae_repro.compare.widths.measured import (
    Dictionaries,
    correlation_rows,
    curve_rows,
    equivalent_rows,
    relation_rows,
)
from sae_repro.compare.widths.relations import KINDS, NEAR
from sae_repro.compare.widths.trees import MOST_TREES, tree_rows
from sae_repro.files import write_text
from sae_repro.metrics.labels import label

CONCEPTS_SHOWN = 4
"""Of a tree, in its row."""
OVER = (
    "Brackets: 95 % interval, jackknife over seeds (of three or more; seeds of two cells are "
    "paired with different ones). A ladder with a cell that missed its target L0 is marked *."
)


@dataclass(frozen=True)
class Widths:
    """What was measured across widths: the ladders, and the rows of each table."""

    ladders: Sequence[Ladder]
    relations: pd.DataFrame
    curve: pd.DataFrame
    correlations: pd.DataFrame
    equivalent: pd.DataFrame
    trees: pd.DataFrame


def measure_widths(results: Sequence[Result], seed: int) -> Widths:
    """All of it; frames without rows where no two cells differ in their width alone."""
    read = Dictionaries()
    found = ladders(results)

    def frame(rows: Callable[[Ladder], Any]) -> pd.DataFrame:
        return pd.DataFrame([row for ladder in found for row in rows(ladder)])

    return Widths(
        found,
        frame(lambda ladder: relation_rows(ladder, read, seed)),
        frame(lambda ladder: curve_rows(ladder, read)),
        frame(lambda ladder: correlation_rows(ladder, read, seed)),
        frame(equivalent_rows),
        frame(lambda ladder: tree_rows(ladder, read)),
    )


def write_widths(folder: Path, widths: Widths, unit: str = "tokens") -> None:
    """The five tables; nothing of what has no rows. `unit`: what the SAEs read, tokens or rows."""
    if len(widths.relations):
        _write_relations(folder, widths.relations, unit)
        text = widths.curve.to_csv(index=False, lineterminator="\n")
        write_text(folder / "widths_curve.csv", text)
    if len(widths.correlations):
        _write_correlations(folder, widths.correlations, unit)
    if len(widths.equivalent):
        _write_equivalent(folder, widths.equivalent)
    if len(widths.trees):
        _write_trees(folder, widths.trees, unit)


def _write_relations(folder: Path, frame: pd.DataFrame, unit: str) -> None:
    caption = (
        "# Across widths\n\nWhat a wider SAE makes of a narrower one, of cells that differ in "
        "their width alone, at one target L0. A latent of the wide SAE, of those that fire on the "
        f"held-out {unit}, is *new* if no decoder row of the narrow SAE has a cosine of "
        f"{NEAR:g} with its own; else the nearest is its parent, and it is a *split* where that "
        "has other children so near, a *copy* where it has none. *Same width*: the same of another "
        "seed of the narrow cell in place of the wide one; what is new there is new by the seed, "
        "not by the width. *Random*: of as many random directions. *Narrow split*: fraction of "
        "narrow latents with several children; *lost*: with none. *Density*: the children's firing "
        "densities, summed, over their parent's, median; 1 where children share out the "
        f"{unit} of their parent. *Same concept*: latents whose best concept is that of their "
        "nearest narrow "
        "latent. *Hedging*: D · (cos² of narrow latents with new ones − that of their copies); "
        "*leaning*: √D · the same of cosines, with their sign; both less what another seed of the "
        "same width gives. Above 0, narrow latents hold directions of features that they have no "
        f"latent for (arXiv:2505.11756). {OVER} widths.csv has every two widths, and the shares of "
        "narrow latents; widths_curve.csv the shares at other cosines."
    )
    shown = frame[frame["neighbours"] == "yes"]
    rows = [
        {
            **_place(row, unit),
            "K": f"{row['K_narrow']:,} → {row['K_wide']:,}",
            **{
                name: f"{_bounded(row, name)}; {number(row[f'{name}_same_width'])}; "
                f"{number(row[f'{name}_random'])}"
                for name in KINDS
            },
            "narrow split, lost": f"{number(row['narrow_split'])}, {number(row['narrow_lost'])}",
            "density, copy; split": f"{number(row['density_copy'])}; "
            f"{number(row['density_split'])}",
            "same concept: copy, split, new": ", ".join(
                number(row[f"same_concept_{name}"]) for name in ("copy", "split", "new")
            ),
            "hedging": _bounded(row, "hedging_beyond_seeds"),
            "leaning": _bounded(row, "leaning_beyond_seeds"),
        }
        for row in shown.to_dict("records")
    ]
    titles = {name: f"{name}; same width; random" for name in KINDS}
    write_table(folder, "widths", frame, caption, pd.DataFrame(rows).rename(columns=titles))


def _write_correlations(folder: Path, frame: pd.DataFrame, unit: str) -> None:
    caption = (
        "# Mean max cosine\n\nDoes an SAE hold the latents of a reference SAE? Of each latent of "
        "the reference, the largest cosine of its decoder row with one of the SAE's; the mean. "
        "References: the cells of each ladder (of one architecture, at one target L0), by width; "
        "the reference's own cell is another seed of it. Random: as many random directions, which "
        f"rises with K. {OVER}"
    )
    shown = pd.DataFrame(
        [
            {
                **_place(row, unit),
                "reference K": f"{row['K_reference']:,}",
                "cell": row["cell"],
                "K": f"{row['K']:,}",
                "mean max cosine ↑": _bounded(row, "mean_max_cosine"),
                "random": number(row["random"]),
            }
            for row in frame.to_dict("records")
        ]
    )
    write_table(folder, "widths_correlations", frame, caption, shown)


def _write_equivalent(folder: Path, frame: pd.DataFrame) -> None:
    caption = (
        "# Equivalent width\n\nThe width at which the cells of a ladder would have the value of a "
        "cell of another architecture, at the same target L0 and length of training: straight in "
        "log K between two widths, seed by seed, never extrapolated. Ratio: over the cell's own K. "
        "Brackets: 95 % of Student's t over seeds. A ladder with a cell that missed its target L0 "
        "is marked *; `l0` is what the cell reached."
    )
    shown = pd.DataFrame(
        [
            {
                "in units of": _place(row)["architecture"],
                "target L0": _place(row)["target L0"],
                "cell": row["cell"],
                "L0": number(row["l0"]),
                "metric": label(row["metric"]),
                "K": f"{row['K']:,}",
                "equivalent K": _bounded(row, "K_equivalent"),
                "ratio": _bounded(row, "ratio"),
                "seeds": row["seeds"],
                "read": row["reading"],
            }
            for row in frame.to_dict("records")
        ]
    )
    write_table(folder, "widths_equivalent", frame, caption, shown)


def _write_trees(folder: Path, frame: pd.DataFrame, unit: str) -> None:
    caption = (
        "# Splitting trees\n\nOf the first seed of each cell of a ladder: a latent of one width "
        "hangs on the nearest of the width before, where the cosine of their decoder rows is "
        f"{NEAR:g} or more. The {MOST_TREES} trees of each ladder with most latents of the widest "
        "SAE. Concepts: the best of each latent at that width, as often as it occurs. "
        "widths_trees.csv has a row per latent. Trees are of decoder rows alone: which latents "
        "fire together is in no table of `evaluate`."
    )
    keys = ["hook", "architecture", "target_l0", "training_tokens", "tree"]
    rows = []
    for _, group in frame.groupby(keys, sort=False, dropna=False):
        row: Any = group.iloc[0].to_dict()
        by_width = [of for _, of in group.groupby("K")]
        rows.append(
            {
                **_place(row, unit),
                "tree": row["tree"],
                "from": f"K {row['K']:,}, latent {row['latent']}",
                "latents by K": ", ".join(f"{len(of)} of {of['K'].iloc[0]:,}" for of in by_width),
                "concept at first": row["concept"] if isinstance(row["concept"], str) else ABSENT,
                "concepts at last": _counted(by_width[-1]["concept"]),
            }
        )
    write_table(folder, "widths_trees", frame, caption, pd.DataFrame(rows))


def _counted(concepts: pd.Series) -> str:
    counts = concepts.dropna().value_counts(sort=True)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    named = [f"{name} × {n}" for name, n in ordered[:CONCEPTS_SHOWN]]
    rest = len(ordered) - len(named)
    return ", ".join(named) + (f", {rest} more" if rest else "") or ABSENT


def _place(row: Any, unit: str = "tokens") -> dict[str, str]:
    tokens = row["training_tokens"]
    return {
        "hook": row["hook"],
        "architecture": row["architecture"],
        "target L0": f"{row['target_l0']:g}" + (" *" if row["missed"] == "yes" else ""),
        unit: ABSENT if tokens is None or tokens != tokens else f"{int(tokens):,}",
    }


def _bounded(row: Any, name: str) -> str:
    return with_interval(row[name], (row[f"{name}_low"], row[f"{name}_high"]))
