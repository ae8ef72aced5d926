"""Overlap of two SAEs' latents: the held-out tokens on which both fire, out of one pass.

Of a latent w of the wide SAE, which fires on the tokens W, and n of the narrow one, on N:

    Jaccard        |W ∩ N| / |W ∪ N|, 1 where both fire on the same tokens
    containment    |W ∩ N| / |W| = P(n | w), 1 where w never fires without n
    beyond chance  (P(n | w) − P(n)) / (1 − P(n)), the containment less what the density of n alone
                   gives: 0 for independent latents, 1 where w never fires without n

The last is J. Loevinger's H of a pair (1948, "The technique of homogeneous tests"). The containment
alone would hang every latent on the densest ones: n that fires on half of all tokens holds half of
anything. That a child fires only where its parent does is the "activation coverage" of T. Cao et
al. 2026 (arXiv:2605.07922), who find that it also pairs what is unrelated: decoder cosines and
nulls belong beside it.

Counts of pairs are sparse, and held for some wide latents at a time: of `PAIRS` pairs at most, 130
bytes each. What fires is held whole, 8 bytes for each active latent of each token and SAE. The work
for two SAEs is Σ over tokens of L0 · L0′.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csc_array, csr_array

from sae_repro.autoencoders import SAE
from sae_repro.autoencoders.encoder import Encoder
from sae_repro.autoencoders.selection import row_starts
from sae_repro.evaluate.held_out import Batch

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PAIRS = 2**22
"""Of latents, whose counts are held at once; a wide latent has K of them at most."""
NONE = -1


def firing(
    saes: Sequence[SAE],
    batches: Iterable[Batch],
    progress: Callable[[int], object] = lambda tokens: None,
) -> list[csr_array]:
    """Of each SAE, 1 where a latent fires on a token: int32 [N, K], in the order of `batches`.

    Each batch is encoded by one SAE after the other; `progress` is called with its tokens.
    """
    encoders = [Encoder(sae) for sae in saes]
    latents: list[list[npt.NDArray[np.int32]]] = [[] for _ in saes]
    counts: list[list[Ints]] = [[] for _ in saes]
    for x_nd, _ in batches:
        for encoder, latent, count in zip(encoders, latents, counts, strict=True):
            k = encoder.sae.d_sae
            flat, _ = encoder(x_nd)
            latent.append((flat % k).astype(np.int32))
            count.append(np.diff(row_starts(flat, len(x_nd), k)))
        progress(len(x_nd))
    return [
        _ones(np.concatenate(latent), np.concatenate(count), sae.d_sae)
        for sae, latent, count in zip(saes, latents, counts, strict=True)
    ]


def _ones(latent: npt.NDArray[np.int32], count_n: Ints, k: int) -> csr_array:
    begin = np.concatenate([[0], np.cumsum(count_n)])
    return csr_array((np.ones(len(latent), np.int32), latent, begin), shape=(len(count_n), k))


def tokens_each(fires_nk: csr_array) -> Ints:
    """The number of tokens on which each latent fires, [K]."""
    return np.bincount(fires_nk.indices, minlength=fires_nk.shape[1]).astype(np.int64)


def shuffled(fires_nk: csr_array, rng: np.random.Generator) -> csr_array:
    """The rows in random order: each token meets another one, mostly of another document."""
    return csr_array(fires_nk[rng.permutation(fires_nk.shape[0])])


@dataclass(frozen=True)
class Overlap:
    """The wide SAE's latents by the tokens that they share with the narrow one's; columns as given.

    NONE stands for a latent that shares no token with any.
    """

    nearest_w: Ints
    """Of each wide latent, the narrow one of the largest Jaccard; the lower of equals."""
    jaccard_w: Floats
    """Of these two."""
    parent_w: Ints
    """Of the narrow latents whose containment is at least the threshold beyond chance, that of the
    largest Jaccard: the narrowest fit. Where there is none, that of the most beyond chance."""
    beyond_w: Floats
    """Containment beyond chance of these two."""
    containment_w: Floats
    """P(parent | w)."""
    parent_jaccard_w: Floats


def overlap(narrow_nk: csr_array, wide_nk: csr_array, threshold: float) -> Overlap:
    """Of two SAEs on the same tokens, every latent of which fires on some."""
    n_tokens, k = wide_nk.shape
    found = Overlap(
        np.full(k, NONE), np.zeros(k), np.full(k, NONE), np.zeros(k), np.zeros(k), np.zeros(k)
    )
    narrow_k, wide_k = tokens_each(narrow_nk), tokens_each(wide_nk)
    chance_k = narrow_k / max(n_tokens, 1)
    for start, both in _together(narrow_nk, wide_nk):
        row, column = (of.astype(np.int64) for of in both.coords)
        shared = both.data.astype(np.float64)
        w, n = wide_k[start + row], narrow_k[column]
        jaccard = shared / (w + n - shared)
        containment = shared / w
        with np.errstate(invalid="ignore"):  # n fires everywhere, which says nothing of w
            beyond = np.nan_to_num((containment - chance_k[column]) / (1 - chance_k[column]))
        near = _first(row, (-jaccard, column))
        of = start + row[near]
        found.nearest_w[of], found.jaccard_w[of] = column[near], jaccard[near]
        inside = beyond >= threshold
        best = _first(row, (~inside, np.where(inside, 0.0, -beyond), -jaccard, column))
        of = start + row[best]
        found.parent_w[of], found.parent_jaccard_w[of] = column[best], jaccard[best]
        found.beyond_w[of], found.containment_w[of] = beyond[best], containment[best]
    return found


def _together(narrow_nk: csr_array, wide_nk: csr_array) -> Iterator[tuple[int, coo_array]]:
    """(the first wide latent, counts [rows, K_n] of tokens shared with each narrow latent)."""
    by_latent = csc_array(wide_nk)
    rows = max(1, PAIRS // max(1, narrow_nk.shape[1]))
    for start in range(0, wide_nk.shape[1], rows):
        yield start, coo_array(by_latent[:, start : start + rows].T @ narrow_nk)


def _first(row: Ints, keys: Sequence[npt.NDArray[np.generic]]) -> Ints:
    """The first entry of each row in the order of `keys`, the most important first."""
    order = np.lexsort((*keys[::-1], row))
    first: Ints = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
    return first


@dataclass(frozen=True)
class Tiles:
    """Children of a narrow latent beside it: do they share out its tokens?"""

    latent: Ints
    """The narrow latents of two children or more; columns as given."""
    children: Ints
    covered: Floats
    """Fraction of the parent's tokens on which a child fires."""
    at_once: Floats
    """Children that fire on a token of those on which one does, mean: 1 where they exclude one
    another, their number where they fire together."""


def tiles(
    narrow_nk: csr_array, wide_nk: csr_array, parent_w: Ints, is_child_w: npt.NDArray[np.bool_]
) -> Tiles:
    """Of the narrow latents that have several children."""
    k = narrow_nk.shape[1]
    child = np.flatnonzero(is_child_w)
    children = np.bincount(parent_w[child], minlength=k)
    several = children > 1
    child = child[several[parent_w[child]]]
    ones = np.ones(len(child), np.int32)
    of_wk = csr_array((ones, (child, parent_w[child])), shape=(wide_nk.shape[1], k))
    firing_nk = csr_array(wide_nk @ of_wk)
    total = np.bincount(firing_nk.indices, firing_nk.data, k)
    tokens = tokens_each(firing_nk)
    on_parent = tokens_each(csr_array(firing_nk.multiply(narrow_nk)))
    latent = np.flatnonzero(several)
    return Tiles(
        latent,
        children[latent],
        on_parent[latent] / tokens_each(narrow_nk)[latent],
        total[latent] / tokens[latent],
    )
