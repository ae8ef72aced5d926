"""Splitting trees: a narrow SAE's latent, the latents of the next width nearest to it, and so on.

A latent hangs on its nearest latent of the width before, by the cosine of decoder rows, where that
is at least `relations.NEAR`; else a tree starts with it. Trees are those of one seed of each width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sae_repro.compare.collect import Result
from sae_repro.compare.widths.directions import Ints, nearest
from sae_repro.compare.widths.ladders import Ladder, width_of
from sae_repro.compare.widths.measured import Dictionaries
from sae_repro.compare.widths.relations import NEAR

MOST_TREES = 10
"""Of a ladder, that are written: those with most latents of the widest SAE."""


@dataclass(frozen=True)
class Level:
    """The latents of one width: which tree each is in, and where it hangs."""

    sae: Result
    latent: Ints
    tree: Ints
    parent: Ints
    """The number of its latent in the width before; −1 where its tree starts."""
    cosine: "np.ndarray[Any, np.dtype[np.float64]]"


def levels(ladder: Ladder, read: Dictionaries) -> list[Level]:
    """Of each cell's first seed, by rising width; one without a live latent is left out."""
    saes = [r.saes[0] for r in ladder.cells if len(read[r.saes[0]])]
    found: list[Level] = []
    trees = 0
    for sae in saes:
        atoms = read[sae]
        n = len(atoms)
        parent, cosine, tree = np.full(n, -1), np.full(n, np.nan), np.full(n, -1)
        if found:
            before = found[-1]
            near = nearest(read[before.sae], atoms)
            hangs = near.cosine_w >= NEAR
            parent[hangs] = before.latent[near.parent_w[hangs]]
            cosine[hangs] = near.cosine_w[hangs]
            tree[hangs] = before.tree[near.parent_w[hangs]]
        new = tree < 0
        tree[new] = trees + np.arange(int(new.sum()))
        trees += int(new.sum())
        found.append(Level(sae, atoms.latent, tree, parent, cosine))
    return found


def tree_rows(ladder: Ladder, read: Dictionaries) -> Iterator[dict[str, Any]]:
    """A row per latent of the trees with most latents of the widest SAE, two at least."""
    grown = levels(ladder, read)
    if len(grown) < 2:
        return
    leaves = np.bincount(grown[-1].tree)
    largest = np.argsort(-leaves, kind="stable")[:MOST_TREES]
    for number, tree in enumerate(largest[leaves[largest] > 1].tolist(), start=1):
        for level in grown:
            names = _names(level.sae)
            for i in np.flatnonzero(level.tree == tree).tolist():
                latent = int(level.latent[i])
                yield {
                    **ladder.place,
                    "tree": number,
                    "cell": level.sae.name,
                    "K": width_of(level.sae),
                    "latent": latent,
                    "parent": int(level.parent[i]) if level.parent[i] >= 0 else None,
                    "cosine": float(level.cosine[i]),
                    "log10_density": float(level.sae.latents["log10_density"].iloc[latent]),
                    "concept": names.get(latent),
                }


def _names(sae: Result) -> dict[int, str]:
    """The concept of each latent that has one."""
    if not (sae.evaluated / "monosemantic.parquet").is_file():
        return {}
    frame = sae.monosemantic.dropna(subset=["concept"])
    return dict(zip(frame["latent"].tolist(), map(str, frame["concept"]), strict=True))
