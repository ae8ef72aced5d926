"""Splitting trees by overlap: a narrow latent, those of the next width that fire within it, etc.

A latent hangs on its parent by firing in the width before (`latents.overlap`); a tree starts with
one that has none. Trees are those of the first SAE of each width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from sae_repro.compare.widths.relations import KINDS, kinds
from sae_repro.latents.overlap import NONE, tokens_each
from sae_repro.latents.overlap_steps import Related
from sae_repro.latents.overlapping import Level, Member

Row = dict[str, Any]
RARE = "rare"
"""The kind by overlap of a latent that fires too seldom to have one."""


@dataclass(frozen=True)
class Node:
    """A latent, and those of the next width that hang on it."""

    level: int
    row: Row
    children: "list[Node]" = field(default_factory=list)

    def leaves(self, level: int) -> int:
        """Latents of the width number `level` in its tree."""
        below = sum(child.leaves(level) for child in self.children)
        return below + (self.level == level)


def grown(levels: Sequence[Level], threshold: float) -> list[Node]:
    """The trees, those with most latents of the widest SAE first; every latent is in one."""
    members = [level.members[0] for level in levels]
    first = [Node(0, row) for row in _own_rows(members[0])]
    roots, before = [*first], first
    for number, (narrow, wide) in enumerate(pairwise(members), start=1):
        found = Related.of(narrow, wide, threshold)
        rows, parents = _related_rows(narrow, wide, found, threshold)
        nodes = [Node(number, row) for row in rows]
        for node, parent in zip(nodes, parents, strict=True):
            (roots if parent == NONE else before[parent].children).append(node)
        before = nodes
    return sorted(roots, key=lambda node: -node.leaves(len(levels) - 1))


def table(trees: Sequence[Node]) -> Iterator[Row]:
    """A row per latent: its tree (the largest is 1), what it is, and its nearest before it."""

    def walk(node: Node, tree: int) -> Iterator[Row]:
        yield {"tree": tree, **node.row}
        for child in node.children:
            yield from walk(child, tree)

    for number, root in enumerate(trees, start=1):
        yield from walk(root, number)


def _own_rows(member: Member) -> list[Row]:
    tokens = tokens_each(member.fires_nk).tolist()
    latents = member.atoms.latent.tolist()
    names = member.of.names(latents)
    return [
        {
            "sae": member.name,
            "K": member.d_sae,
            "latent": latent,
            "name": names[latent],
            "tokens": n,
            "density": n / member.fires_nk.shape[0],
        }
        for latent, n in zip(latents, tokens, strict=True)
    ]


def _related_rows(
    narrow: Member, wide: Member, found: Related, threshold: float
) -> tuple[list[Row], list[int]]:
    """(a row per latent of the wide SAE, its parent's position among the narrow's, or NONE)."""
    by_cosine, by_firing = found.by_cosine, found.by_firing
    kind_w = np.full(len(wide.atoms), RARE, dtype=object)
    kind_w[found.often] = np.array(KINDS, dtype=object)[kinds(found.as_nearest, threshold)]
    hangs_w = ~np.isin(kind_w, [RARE, KINDS[0]])
    parent_w = np.where(hangs_w, by_firing.parent_w, NONE)
    cosine_w = (wide.atoms.rows_kd * narrow.atoms.rows_kd[parent_w]).sum(axis=1)
    before = narrow.atoms.latent.tolist()
    kinds_by_cosine = kinds(by_cosine)
    rows = []
    for w, own in enumerate(_own_rows(wide)):
        near, parent = int(by_firing.nearest_w[w]), int(parent_w[w])
        hangs = parent != NONE
        rows.append({
            **own,
            "parent": before[parent] if hangs else None,
            "containment": float(by_firing.containment_w[w]) if hangs else None,
            "beyond_chance": float(by_firing.beyond_w[w]) if hangs else None,
            "jaccard": float(by_firing.parent_jaccard_w[w]) if hangs else None,
            "cosine": float(cosine_w[w]) if hangs else None,
            "kind_overlap": kind_w[w],
            "kind_cosine": KINDS[kinds_by_cosine[w]],
            "nearest_cosine": before[by_cosine.parent_w[w]],
            "largest_cosine": float(by_cosine.cosine_w[w]),
            "nearest_jaccard": None if near == NONE else before[near],
            "largest_jaccard": float(by_firing.jaccard_w[w]),
            "same_nearest": "yes" if found.same[w] else "no",
        })  # fmt: skip
    return rows, parent_w.tolist()
