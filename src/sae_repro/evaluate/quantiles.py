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
        wanted = np.ceil(total * i / n)
        found = (running >= np.maximum(wanted, 1)).argmax(axis=1)
        edges[:, i - 1] = np.where(total[:, 0] > 0, upper_edge(found), 0.0)
    return edges
