"""The sections of the page, out of reports/tables and reports/figures, verdict first."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sae_repro.report.parts import (
    Maker,
    Section,
    Table,
    Value,
    caption,
    figure,
    items,
    printed,
    read_table,
)

VERDICT = {
    "architecture": "architecture",
    "seeds": "seeds",
    "l0": "L0",
    "kl": "KL ↓",
    "fvu": "FVU ↓",
    "ce_recovered_zero": "CE recovered ↑",
    "monosemantic_fraction_scored": "monosemantic of scored ↑",
    "pw_mcc": "PW-MCC ↑",
    "shared_fraction": "shared latents ↑",
    "hole_rate": "hole rate ↓",
    "absorption_rate": "absorption ↓",
    "dead_fraction_never": "never fires ↓",
}
CELLS = {
    "cell": "cell",
    "architecture": "architecture",
    "hook": "hook",
    "K": "K",
    "seeds": "seeds",
    "l0": "L0",
    "fvu": "FVU ↓",
    "ce_recovered_zero": "CE recovered ↑",
    "kl": "KL ↓",
    "dead_fraction_never": "never fires ↓",
    "dead_fraction_below": "dead as published ↓",
    "monosemantic_fraction_alive": "monosemantic of alive ↑",
}
CONTROL = {
    "world": "world",
    "recipe": "recipe",
    "seeds": "seeds",
    "matched_cosine": "cosine to the true atom ↑",
    "f1": "F1 ↑",
    "parent_recall": "parent recall ↑",
    "hole_rate": "hole rate ↓",
    "child_parent_cosine": "cosine of child and parent",
    "l0": "L0",
    "fvu": "FVU ↓",
    "dead_fraction_never": "never fires ↓",
    "revived_fraction": "revived ↑",
}
CONSISTENCY = {
    "cell": "cell",
    "l0": "L0",
    "seeds": "seeds",
    "pw_mcc": "PW-MCC ↑",
    "pw_mcc_null": "its null",
    "shared_fraction": "shared latents ↑",
    "activation_mcc": "of activations ↑",
    "stability_M": "ρ(stability, M)",
}
STRUCTURE = {
    "cell": "cell",
    "l0": "L0",
    "coverage": "concepts covered ↑",
    "hole_rate": "hole rate ↓",
    "absorption_rate": "absorption ↓",
    "splitting_mean": "splitting ↓",
    "fragmented_fraction": "fragmented ↓",
    "probe_auc_1": "probe AUC, 1 latent ↑",
    "decoder_max_cosine": "nearest atom's cosine",
    "decoder_near_copy_fraction": "near copies ↓",
    "description_length": "description length ↓",
}
CLAIM = {
    "claim": "claim",
    "verdict": "verdict",
    "value": "value",
    "n": "n",
    "over": "over",
    "expected": "expected",
    "statistic": "statistic",
    "quote": "as claimed",
    "source": "source",
    "command": "decide it again",
}
FIGURE_OF = {
    "dead_fraction": ("dead_", "death", "dies"),
    "training_curves": ("steps", "tokens"),
    "consistency": ("pw_mcc", "shared_fraction", "stability"),
    "coverage": ("coverage",),
    "density": ("density",),
    "monosemantic_by_quantile": ("kappa",),
    "frontier": ("fvu", "l0", "kl", "ce_recovered"),
}
"""The figure that shows what a claim's statistic is about, by words of the statistic."""


def sections(reports: Path, maker: Maker) -> Iterator[Section]:
    """The sections that need nothing but reports/, in the order of the page."""
    tables, figures = reports / "tables", reports / "figures"

    def drawn(*names: str) -> list[Any]:
        return [one for name in names for one in figure(figures, name)]

    verdict = caption(tables / "verdict.md")
    yield Section("verdict", "Verdict", verdict[:2], verdict[2:], tables=[*_verdicts(maker)])
    findings = tables / "findings.md"
    yield Section("findings", "Findings", items(findings), caption(findings))
    yield Section(
        "published", "The published grid, and this study's", (),
        [*caption(tables / "dead_fraction_below.md"), *caption(tables / "judged.md")],
        drawn("dead_fraction"), [*_grids(maker)],
    )  # fmt: skip
    yield Section("claims", "Claims of others", (), caption(tables / "claims.md"),
                  tables=[*_claims(maker, figures)])  # fmt: skip
    yield Section(
        "frontier", "Sparsity against reconstruction", (), caption(tables / "matched_l0.md"),
        drawn("frontier"),
        maker.table(
            "matched_l0", "Architectures at equal L0, read off each architecture's line of cells",
            {"hook": "hook", "expansion": "K / D", "target_l0": "L0",
             "architecture": "architecture", "seeds": "seeds", "fvu": "FVU ↓",
             "ce_recovered_zero": "CE recovered ↑", "reading": "reading"},
        ),
    )  # fmt: skip
    curve = read_table(tables, "dead_curve")
    thresholds = {c: f"below {c}" for c in curve.columns if c not in ("cell", "latents", "never")}
    yield Section(
        "dead", "Dead latents", (), caption(tables / "dead_curve.md"), drawn("dead_curve"),
        maker.table(
            "dead_curve", "Fraction of latents whose largest activation stays below a threshold",
            {"cell": "cell", "latents": "latents", "never": "never fires", **thresholds},
        ),
    )  # fmt: skip
    yield Section("density", "How often latents fire", figures=drawn("density"))
    yield Section("training", "Training", figures=drawn("training_curves"))
    yield Section(
        "control", "Controls: atoms that are known", (), caption(tables / "control.md"),
        drawn(*sorted(p.stem for p in figures.glob("control_*.svg"))),
        maker.table("control", "The same autoencoders on synthetic data", CONTROL),
    )  # fmt: skip
    yield Section(
        "consistency", "Features that another seed finds again", (),
        caption(tables / "consistency.md"), drawn("consistency"),
        maker.table("consistency", "Cells with several seeds", CONSISTENCY),
    )  # fmt: skip
    yield Section(
        "structure", "Splitting, holes, absorption, coverage", (),
        caption(tables / "structure.md"), drawn("coverage", "monosemantic_by_quantile"),
        maker.table("structure", "How latents divide concepts", STRUCTURE),
    )  # fmt: skip


def cells_section(reports: Path, maker: Maker) -> Section:
    """Every cell, for the end of the page."""
    named = maker.table("cells", "Means over a cell's seeds; brackets: 95 % intervals", CELLS)
    sources = [[Value(o.cell), Value(o.key), Value(o.artifact)] for o in maker.origins.values()]
    heads = ["cell", "key", "artifacts/evaluate/<cell>"]
    listing = Table("Where each cell's numbers come from", heads, sources)
    method = caption(reports / "tables" / "cells.md")
    return Section("cells", "All cells", (), method, tables=[*named, listing])


def _verdicts(maker: Maker) -> Iterator[Table]:
    verdict, cells = (read_table(maker.tables, name) for name in ("verdict", "cells"))
    if verdict.empty:
        return
    architectures = verdict[verdict["control"].isna()]
    groups = [*architectures.groupby(["hook", "expansion"], sort=False)]
    # where most architectures meet first
    for (hook, expansion), group in sorted(groups, key=lambda found: -len(found[1])):
        for target, rows in group.groupby("target_l0", sort=True):
            behind = {place: _cells_behind(cells, row) for place, row in rows.iterrows()}
            text = f"{hook}, {expansion:g}×: L0 {target:g}"
            yield from maker.table("verdict", text, VERDICT, rows, behind)
    # they stand beside every group, with the same numbers
    controls = verdict[verdict["control"].notna()].drop_duplicates(["architecture", "l0", "fvu"])
    behind = {place: [str(cell)] for place, cell in controls["control"].items()}
    yield from maker.table(
        "verdict", "Controls, at the L0 that they reach", VERDICT, controls, behind
    )


def _cells_behind(cells: pd.DataFrame, row: "pd.Series[Any]") -> list[str]:
    """The cells of an architecture at a target L0."""
    same = cells["hook"].eq(row["hook"]) & cells["expansion"].eq(row["expansion"])
    same &= cells["architecture"].eq(row["architecture"])
    same &= cells["target_l0"].eq(row["target_l0"])
    return [str(name) for name in cells.loc[same, "cell"]]


def _grids(maker: Maker) -> Iterator[Table]:
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
                         *(_difference(pair, column) for pair in pairs)])  # fmt: skip
    return Table(text, ["", "λ", *(f"{k:g}×" for k in widths)], rows)


def _grid_value(maker: Maker, name: str, row: Mapping[Any, Any] | None, column: str) -> Value:
    if row is None or row[column] != row[column]:
        return Value(printed(None))
    value, text, full = row[column], printed(row[column]), str(row[column])
    prefix = "" if column == "dead" else column.replace("rate", "")
    low, high = row.get(f"{prefix}low"), row.get(f"{prefix}high")
    if not column.startswith("published") and low is not None and low == low:
        text += f" [{printed(low)}, {printed(high)}]"
        full = f"{value} [{low}, {high}]"
    cells = () if column.startswith("published") else (row.get("cell", ""),)
    return Value(text, maker.title(full, name, cells))


def _difference(pair: Sequence[Mapping[Any, Any] | None], column: str) -> Value:
    first, second = (row[column] if row is not None else float("nan") for row in pair)
    difference = second - first
    if difference != difference:
        return Value(printed(None))
    several = all(row is not None and row.get("seeds", 1) > 1 for row in pair)
    remark = "" if several or column.startswith("published") else " (one seed)"
    return Value(f"{difference:+.3g}{remark}", f"{second} − {first}")


def _claims(maker: Maker, figures: Path) -> Iterator[Table]:
    claims = read_table(maker.tables, "claims")
    if claims.empty:
        return
    claims = claims.rename(columns={"low": "value_low", "high": "value_high"})
    heads = {column: head for column, head in CLAIM.items() if column in claims}
    for table in maker.table(
        "claims", "What others claim, and whether it is so here", heads, claims
    ):
        linked = [
            [*row, _figure_link(str(statistic), figures)]
            for row, statistic in zip(table.rows, claims["statistic"], strict=True)
        ]
        yield Table(table.caption, [*table.heads, "figure"], linked)


def _figure_link(statistic: str, figures: Path) -> Value:
    for name, words in FIGURE_OF.items():
        if any(word in statistic for word in words) and (figures / f"{name}.svg").is_file():
            return Value(name.replace("_", " "), href=f"#figure-{name}")
    return Value(printed(None))
