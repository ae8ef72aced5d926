"""Absorption as trees: parent concepts, and the children at whose tokens latents are silent."""

from collections.abc import Iterator, Sequence

import pandas as pd

from sae_repro.report.parts import Branch, Section, Tree, printed, prose, sae_number
from sae_repro.report.shown import ShownSae

BRANCHES, CHILDREN = 12, 8


def trees_section(saes: Sequence[ShownSae]) -> Section:
    """The testable pairs of each SAE, children under their parents."""
    how = prose(
        "Recall: on how many of the parent's tokens that are no child's its latents fire. Hole "
        "rate: how much less they fire on a child's. Absorbed: on how many of the child's tokens "
        "another latent stands in for the parent's. docs/metrics.md has the definitions."
    )
    trees = [tree for sae in saes for tree in _trees(sae)]
    title = "Absorption: parents that are silent where a child fires"
    return Section("absorption", title, method=[how] if trees else (), trees=trees)


def _trees(sae: ShownSae) -> Iterator[Tree]:
    frame = sae.table("pairs")
    if frame is None:
        return
    tested = frame[(frame["status"] == "testable") & (frame["silence"] == "zero")]
    if tested.empty:
        return
    # parents with the most silent child first
    worst = tested.groupby("parent", sort=True)[["absorption", "hole_rate"]].max()
    parents = worst.sort_values(["absorption", "hole_rate"], ascending=False, kind="stable").index
    branches = [_branch(sae, tested[tested["parent"] == name]) for name in parents[:BRANCHES]]
    text = f"{sae.name}: {len(tested)} testable pairs of {len(parents)} parents"
    text += f"; the {BRANCHES} with the largest rates" if len(parents) > BRANCHES else ""
    yield Tree(text, branches)


def _branch(sae: ShownSae, pairs: pd.DataFrame) -> Branch:
    order = ["absorption", "hole_rate", "child"]
    pairs = pairs.sort_values(order, ascending=[False, False, True], kind="stable")
    first = pairs.iloc[0]
    facts = f"recall {printed(float(first['childless_recall']))} without children"
    more = len(pairs) - CHILDREN
    facts += f"; {more} more children" if more > 0 else ""
    children = [
        (
            str(row["child"]),
            sae_number(sae, float(row["hole_rate"]), "pairs"),
            sae_number(sae, float(row["absorption"]), "pairs"),
            printed(int(row["child_tokens"])),
        )
        for row in pairs.head(CHILDREN).to_dict("records")
    ]
    return Branch(str(first["parent"]), facts, children)
