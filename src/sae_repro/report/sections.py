"""The sections of the page, out of reports/tables and reports/figures, verdict first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from sae_repro.report.grids import grids
from sae_repro.report.ledger import claims_section
from sae_repro.report.parts import (
    Maker,
    Section,
    Table,
    Value,
    caption,
    figure,
    items,
    read_table,
)
from sae_repro.report.steered import steering_section

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
WIDTHS = {
    "narrow": "narrow",
    "wide": "wide",
    "K_narrow": "K",
    "K_wide": "K, wide",
    "target_l0": "target L0",
    "new": "new",
    "new_same_width": "new, same width",
    "split": "split",
    "split_same_width": "split, same width",
    "copy": "copy",
    "hedging_beyond_seeds": "hedging",
    "leaning_beyond_seeds": "leaning",
}
EQUIVALENT = {
    "architecture": "in units of",
    "target_l0": "target L0",
    "cell": "cell",
    "metric": "metric",
    "K": "K",
    "K_equivalent": "equivalent K",
    "ratio": "ratio",
    "reading": "read",
}
SCALING = {
    "family": "family",
    "law": "law",
    "at": "at",
    "of": "loss",
    "E": "irreducible",
    "alpha": "α (width)",
    "beta": "β (tokens or L0)",
    "misfit": "misfit",
    "held_out": "held out",
    "predicted": "predicted",
    "observed": "observed",
}


def sections(reports: Path, maker: Maker) -> Iterator[Section]:
    """The sections that need nothing but reports/, in the order of the page."""
    tables, figures = reports / "tables", reports / "figures"

    def drawn(*names: str) -> list[Any]:
        return [one for name in names for one in figure(figures, name)]

    verdict = caption(tables / "verdict.md")
    yield Section("verdict", "Verdict", verdict[:2], verdict[2:], tables=[*_verdicts(maker)])
    findings = tables / "findings.md"
    yield Section("findings", "Findings", method=caption(findings), points=items(findings))
    yield Section(
        "published", "The published grid, and this study's", (),
        [*caption(tables / "dead_fraction_below.md"), *caption(tables / "judged.md")],
        drawn("dead_fraction"), [*grids(maker)],
    )  # fmt: skip
    yield claims_section(maker, figures)
    yield Section(
        "frontier", "Sparsity against reconstruction", (), caption(tables / "matched_l0.md"),
        drawn("frontier"),
        maker.table(
            "matched_l0", "Architectures at equal L0, read off each architecture's line of cells",
            {"architecture": "architecture", "hook": "hook", "expansion": "K / D",
             "target_l0": "L0", "seeds": "seeds", "fvu": "FVU ↓",
             "ce_recovered_zero": "CE recovered ↑", "reading": "reading"},
            _read_off(tables),
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
    yield steering_section(tables, maker)
    yield Section("layers", "By layer", figures=drawn("layers"))
    yield Section(
        "scaling", "Scaling laws", (), caption(tables / "scaling.md"), drawn("scaling"),
        maker.table("scaling", "Laws, and the largest cell as predicted and measured", SCALING),
    )  # fmt: skip
    yield Section(
        "widths", "Across widths", (), caption(tables / "widths.md"), drawn("widths"),
        [*maker.table("widths", "What a wider SAE makes of a narrower one", WIDTHS),
         *maker.table("widths_equivalent", "Width at which the ladder has the same value",
                      EQUIVALENT)],
    )  # fmt: skip


def cells_section(reports: Path, maker: Maker) -> Section:
    """Every cell, for the end of the page."""
    named = maker.table("cells", "Means over a cell's seeds; brackets: 95 % intervals", CELLS)
    sources = [
        [Value(o.cell), Value(" ".join(o.keys)), Value(" ".join(o.trained)), Value(o.artifact)]
        for o in maker.origins.values()
    ]
    heads = ["cell", "keys of evaluation", "keys of training", "artifacts/evaluate/<cell>"]
    listing = Table("Where each cell's numbers come from", heads, sources)
    method = caption(reports / "tables" / "cells.md")
    return Section("cells", "All cells", (), method, tables=[*named, listing])


def _verdicts(maker: Maker) -> Iterator[Table]:
    verdict, cells = (read_table(maker.tables, name) for name in ("verdict", "cells"))
    if verdict.empty:
        return
    verdict = verdict.reindex(columns=[*dict.fromkeys([*verdict.columns, "control"])])
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


def _read_off(tables: Path) -> pd.DataFrame:
    """matched_l0.csv where an architecture's line of cells reaches the L0."""
    frame = read_table(tables, "matched_l0")
    return frame if frame.empty else frame[frame["seeds"] > 0]
