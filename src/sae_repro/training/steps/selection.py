"""Exact selections of a code's entries: flat indices into pre-activations [N, K], rising.

They find bounds first, so that each entry is read a few times and none is sorted; among equal
values the first ones are taken. NaN counts as the largest, so that a broken step shows in its loss.
"""

import numpy as np
import numpy.typing as npt
from torch import Tensor

Floats = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SLACK = 0.9
"""Of the last batch's threshold: above this part of it, the next batch's is looked for."""


def above(u_nk: Tensor, bound: Tensor | float) -> Mask:
    """1[u > bound] [N, K], and 1 where u is NaN; `bound` is a number or [K]."""
    # "not ≤" holds for NaN; negating booleans costs a quarter of a pass
    mask: Mask = np.less_equal(u_nk.numpy(), bound.numpy() if isinstance(bound, Tensor) else bound)
    np.logical_not(mask, out=mask)
    return mask


def top_k(score_nk: Tensor, k: int) -> Indices:
    """The k largest of each row, of those only that are positive."""
    score = score_nk.numpy()
    low_n = _kth_largest_maximum(score_nk, k)
    # nothing that is not positive fires
    np.maximum(low_n, np.finfo(score.dtype).smallest_subnormal, out=low_n)
    mask = np.less(score, low_n[:, None])
    flat: Indices = np.flatnonzero(np.logical_not(mask, out=mask))
    row_of = flat // score.shape[1]
    value, count_n = score.reshape(-1)[flat], np.bincount(row_of, minlength=len(score))
    width = int(count_n.max(initial=0))
    if width <= k:
        return flat
    start_n = np.cumsum(count_n) - count_n
    padded = np.full((len(score), width), -np.inf, score.dtype)
    shift_n = np.arange(len(score)) * width - start_n
    padded.reshape(-1)[np.arange(len(flat)) + shift_n[row_of]] = value
    least = np.partition(padded, width - k, axis=1)[:, width - k][row_of]
    keep = ~(value < least)
    if (np.bincount(row_of[keep], minlength=len(score)) > k).any():
        _drop_ties(keep, value, least, row_of, k)
    kept: Indices = flat[keep]
    return kept


def _kth_largest_maximum(score_nk: Tensor, k: int) -> Floats:
    """A lower bound of each row's k-th largest entry: that of the maxima of strided groups."""
    n, width = score_nk.shape
    size = 2 ** round(np.log2(max(1.0, (width / k) ** 0.5)))  # of a group; at least k groups
    groups = width // size
    maxima = score_nk[:, : groups * size].view(n, size, groups).amax(1) if size > 1 else score_nk
    at = groups - k
    kth: Floats = np.partition(maxima.numpy(), at, axis=1)[:, at].copy()
    return kth


def _drop_ties(keep: Mask, value: Floats, least: Floats, row_of: Indices, k: int) -> None:
    """Of the entries that equal their row's k-th largest, keep the first ones up to k; in place."""
    rows = int(row_of[-1]) + 1
    tied = np.flatnonzero(value == least)
    left_n = k - np.bincount(row_of[value > least], minlength=rows)
    row = row_of[tied]
    count_n = np.bincount(row, minlength=rows)
    rank = np.arange(len(tied)) - (np.cumsum(count_n) - count_n)[row]
    keep[tied[rank >= left_n[row]]] = False


class BatchTopK:
    """The `wanted` largest of a batch's positive entries.

    The last batch's threshold is where the search starts; the result doesn't depend on it.
    """

    def __init__(self) -> None:
        self._floor = 0.0

    def __call__(self, score_nk: Tensor, wanted: int) -> Indices:
        score = score_nk.numpy().reshape(-1)
        flat: Indices = np.flatnonzero(above(score_nk, self._floor))
        if len(flat) < wanted and self._floor > 0:
            flat = np.flatnonzero(above(score_nk, 0.0))
        if len(flat) <= wanted:
            return flat
        value = score[flat]
        least = np.partition(value, len(value) - wanted)[len(value) - wanted]
        keep = ~(value < least)
        extra = int(keep.sum()) - wanted
        if extra:
            keep[np.flatnonzero(value == least)[-extra:]] = False
        self._floor = max(0.0, SLACK * float(least)) if np.isfinite(least) else 0.0
        kept: Indices = flat[keep]
        return kept
