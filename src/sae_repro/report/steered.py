"""Steering on the page: a row per cell, class of words and place where its latent fires."""

from pathlib import Path

import pandas as pd

from sae_repro.report.parts import Maker, Section, caption, read_table

CONDITIONS = {
    "latent": "latent clamped ↑",
    "difference of means": "difference of means ↑",
    "prompt": "prompt",
    "random latent": "random latent",
    "latent set to 0": "latent set to 0",
}
"""Conditions of the metric, as the page heads them; the last against no steering."""
ROLES = {"current": "on its words", "next": "on the token before them"}
ROW = ["cell", "concept", "role"]


def steering_section(tables: Path, maker: Maker) -> Section:
    """Shares of a class's words over those by random directions of equal KL; empty without any."""
    text = "Share of the class among the words written, less that by random directions of equal KL"
    heads = {"cell": "cell", "concept": "class", "fires": "latent fires", **CONDITIONS}
    return Section(
        "steering", "Steering by latents", (), caption(tables / "steering.md"), (),
        maker.table("steering", text, heads, _wide(read_table(tables, "steering"))),
    )  # fmt: skip


def _wide(long: pd.DataFrame) -> pd.DataFrame:
    """A row per cell, class and place; a column per condition, with its interval beside it."""
    if long.empty:
        return long
    measured = long[long["condition"].isin(CONDITIONS)]
    rows = []
    for (cell, concept, role), group in measured.groupby(ROW, sort=False):
        row = {"cell": cell, "concept": concept, "fires": ROLES[str(role)]}
        for one in group.to_dict("records"):
            row[one["condition"]] = one["difference"]
            row[f"{one['condition']}_low"] = one["low"]
            row[f"{one['condition']}_high"] = one["high"]
        rows.append(row)
    return pd.DataFrame(rows)
