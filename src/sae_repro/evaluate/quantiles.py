"""Quantiles of positive activations from integer counts: mergeable, independent of any order.

A value's bin is its fp32 exponent and the top 3 bits of its mantissa, so that an edge is within
1/8 of an octave of the value; counts are exact.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

SHIFT = 20  # 23 mantissa bits, 3 kept
LOWEST = (127 - 40) << 3  # 2^-40 and below share a bin
BINS = (80 << 3) + 1  # up to 2^40


def bin_of(values: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """The bin of each positive value, 0 … BINS − 1."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.int32) >> SHIFT
    bins: npt.NDArray[np.int32] = np.clip(bits - LOWEST, 0, BINS - 1).astype(np.int32)
    return bins


def upper_edge(bins: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The least value beyond each bin."""
    bits = ((np.asarray(bins, dtype=np.int64) + LOWEST + 1) << SHIFT).astype(np.int32)
    return bits.view(np.float32).astype(np.float64)


def quantile_edges(counts: npt.NDArray[Any], n: int) -> npt.NDArray[np.float64]:
    """The n − 1 inner edges of n quantile groups per row of `counts` [K, BINS]; [K, n − 1].

    A row without counts has edges 0. Equal edges mean that a group is empty.
    """
    total = counts.sum(axis=1, keepdims=True)
    running = counts.cumsum(axis=1)
    edges = np.zeros((len(counts), n - 1))
    for i in range(1, n):
        rank = np.ceil(total * i / n)
        bins = (running >= np.maximum(rank, 1)).argmax(axis=1)
        edges[:, i - 1] = np.where(total[:, 0] > 0, upper_edge(bins), 0.0)
    return edges


def least_of_largest(counts: npt.NDArray[Any], m: int) -> npt.NDArray[np.float64]:
    """Per row of `counts` [K, BINS] the least value of the bin that holds the m-th largest value.

    Where there are fewer values than m: 0.
    """
    above = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    last = np.where(above >= m, np.arange(BINS), 0).max(axis=1)
    return np.where(last > 0, upper_edge(last - 1), 0.0)


class Groups:
    """The group, of n, that a value of a row falls into, by its bin; `edges_kn` is [K, n − 1]."""

    def __init__(self, edges_kn: npt.NDArray[np.float64]) -> None:
        self.n = edges_kn.shape[1] + 1
        # a group begins with the bin after its edge; beyond the last bin nothing begins
        beyond = edges_kn >= upper_edge(np.array(BINS - 1))
        first = np.where(beyond, BINS, bin_of(edges_kn))
        begins_kb = np.zeros((len(first), BINS + 1), dtype=np.int8)
        np.add.at(begins_kb, (np.arange(len(first))[:, None], first), 1)
        self._group_kb = begins_kb[:, :BINS].cumsum(axis=1, dtype=np.int8)

    def of(self, row: npt.NDArray[Any], bins: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
        """The number of edges of its `row` that each value reaches; `bins` are the values' own."""
        group: npt.NDArray[np.int8] = self._group_kb.ravel()[row * BINS + bins]
        return group

    def counts(self, counts_kb: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Per row and group how many values `counts_kb` [K, BINS] has; [K, n]."""
        k, bins = np.nonzero(counts_kb)
        group = k * self.n + self._group_kb[k, bins]
        total = np.bincount(group, weights=counts_kb[k, bins], minlength=len(counts_kb) * self.n)
        return total.reshape(-1, self.n).astype(np.int64)
