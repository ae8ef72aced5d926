"""Prefixes that follow what fires on each token, by hand: entries by the errors they take part in.

It gives what `autoencoders.nested` does, on the entries that fire alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sae_repro.autoencoders.prefixes import prefix_weights
from sae_repro.autoencoders.selection import Indices, row_starts
from sae_repro.params import Cell
from sae_repro.training.steps.workspace import Floats


class Nesting(NamedTuple):
    """Entries by token, then by the first error that they take part in."""

    flat: Indices
    """Flat indices into [N, K], [nnz]."""
    group: npt.NDArray[np.int64]
    """0 … m − 1, [nnz]."""
    m: int
    weight: Floats | None
    """Of the m errors, [m] or [N, m], relative to 1 / (number of lengths); None: all the same."""


def nested(
    cell: Cell, u_nk: Floats, found: Indices, norm_k: Floats | None, lengths: list[int]
) -> Nesting:
    """The entries at rising flat indices `found`, all positive; `norm_k` is ‖d‖, None: all 1."""
    n, d_sae = u_nk.shape
    start_n = row_starts(found, n, d_sae)
    strength = u_nk.reshape(-1).take(found)
    if norm_k is not None:
        strength = strength * norm_k.take(found % d_sae)
    return NESTINGS[cell.prefixes](cell, found, strength, start_n, lengths, d_sae)


def _hierarchical(
    cell: Cell, flat: Indices, strength: Floats, start_n: Indices, lengths: list[int], d_sae: int
) -> Nesting:
    n = len(start_n) - 1
    row = np.arange(n).repeat(np.diff(start_n))
    if cell.activation_row.threshold == "calibrated":  # of the batch
        rank = np.empty(len(flat), np.int64)
        rank[np.argsort(-strength, kind="stable")] = np.arange(len(flat))
        group = np.searchsorted(np.array(lengths) * n, rank, side="right")
        order = np.lexsort((group, row))
        group = group.take(order)
    else:
        order = np.lexsort((-strength, row))
        rank = np.arange(len(flat)) - start_n.take(row)
        group = np.searchsorted(np.array(lengths), rank, side="right")
    return Nesting(flat.take(order), group, len(lengths), prefix_weights(cell, d_sae))


def _all(
    cell: Cell, flat: Indices, strength: Floats, start_n: Indices, lengths: list[int], d_sae: int
) -> Nesting:
    n, count_n = len(start_n) - 1, np.diff(start_n)
    row = np.arange(n).repeat(count_n)
    group = np.arange(len(flat)) - start_n.take(row) + 1
    m = int(count_n.max(initial=0)) + 1
    start = np.full((n, m + 1), d_sae)
    start[:, 0] = 0
    start[row, group] = flat - row * d_sae
    return Nesting(flat, group, m, np.diff(start, axis=1) / d_sae)


NESTINGS: dict[str, Callable[[Cell, Indices, Floats, Indices, list[int], int], Nesting]] = {
    "all": _all,
    "hierarchical": _hierarchical,
}
"""By prefix scheme with `by_token`, as `autoencoders.nested.NESTINGS`."""
