"""The hierarchy of concepts, parents and children, from the labels alone: it serves any text."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_repro.concepts.bank import ConceptBank

Ints = npt.NDArray[np.int64]

LARGE = 0.05  # of the parent's positives
COMMON = 0.5  # fraction of tokens beyond which a concept contains others by chance


@dataclass(frozen=True)
class Family:
    """A parent concept and its large children, by their numbers in the bank."""

    parent: int
    children: Ints
    """From the largest on."""


@dataclass(frozen=True)
class Hierarchy:
    """All parents with large children, and what was not taken for a parent or a child."""

    families: tuple[Family, ...]
    duplicates: int
    """Concepts on the same tokens as one before them, which stands for them."""
    too_common: int
    small_children: int
    """Pairs of a parent and a child with < 5 % of its positives."""


def hierarchy(bank: ConceptBank) -> Hierarchy:
    """Find the parents and their large children on the fit half.

    c is a child of p if every token of c carries p and c has fewer. Both speak of the token itself,
    or both of the one before, or both of the one after: across, containment says which words follow
    which. A parent covers at most half of the tokens: of 50 tokens of a concept that has nothing to
    do with p, all carry it with probability 2^-50. Of concepts on the same tokens the first counts.
    """
    labels = bank.labels.astype(np.int32)[bank.fit]
    both_cc = np.asarray((labels.T @ labels).toarray(), dtype=np.int64)
    size_c = np.diag(both_cc)
    same = (both_cc == size_c[:, None]) & (both_cc == size_c)
    duplicate = np.triu(same, 1).any(axis=0)
    common = size_c > COMMON * bank.fit.sum()
    about = np.array([kind if kind in ("previous", "next") else "here" for kind in bank.kinds])
    contains_pc = (both_cc == size_c) & (size_c[:, None] > size_c) & (about[:, None] == about)
    contains_pc &= ~duplicate & ~duplicate[:, None] & ~common[:, None]
    large_pc = contains_pc & (size_c >= LARGE * size_c[:, None])
    families = []
    for parent in np.flatnonzero(large_pc.any(axis=1)).tolist():
        children = np.flatnonzero(large_pc[parent])
        by_size = np.argsort(-size_c[children], kind="stable")
        families.append(Family(parent, children[by_size]))
    return Hierarchy(
        families=tuple(families),
        duplicates=int(duplicate.sum()),
        too_common=int(common.sum()),
        small_children=int((contains_pc & ~large_pc).sum()),
    )
