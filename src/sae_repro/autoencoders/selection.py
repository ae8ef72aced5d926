"""Exact selections of a code's entries: flat indices into pre-activations [N, K], rising.

They find bounds first, so that each entry is read a few times and none is sorted; among equal
values the first ones are taken. NaN counts as the largest, so that a broken step shows in its loss.
"""

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SHORT = 256
"""Up to this K, entries are looked for above a row's own k-th largest, without a bound of it
first: a bound costs as much there, and at K 512 it saves up to a tenth of a step."""
MANY, FEW = 1 << 14, 0.1
"""Entries of a mask from which on, and the fraction of them up to which, eight are asked at a time;
above that fraction numpy does without branches."""
SLACK = 0.9
"""Of the last batch's threshold: above this part of it, the next batch's is looked for."""


def above(u_nk: Floats, bound: Floats | float) -> Mask:
    """1[u > bound] [N, K], and 1 where u is NaN; `bound` is a number or [K]."""
    # "not ≤" holds for NaN; negating booleans costs a quarter of a pass
    mask: Mask = np.less_equal(u_nk, bound)
    np.logical_not(mask, out=mask)
    return mask


def positions(mask: Mask, count: int | None = None) -> Indices:
    """The rising flat indices at which a mask is true; `count` is their number, if it is known.

    As `np.flatnonzero`, in half to nine tenths of its time: where few are true, eight at a time are
    asked first.
    """
    flat = np.ascontiguousarray(mask).reshape(-1)
    if count is None:
        count = int(np.count_nonzero(flat))
    if flat.size % 8 or flat.size < MANY or count > FEW * flat.size:
        found: Indices = np.flatnonzero(flat)
        return found
    eights = flat.view(np.uint64)
    some = np.flatnonzero(eights != 0)
    within = np.flatnonzero(eights.take(some).view(np.bool_))
    found = some.take(within >> 3)
    found <<= 3
    found += within & 7
    return found


def top_k(score: Floats, k: int) -> Indices:
    """The k largest of each row of [N, K], of those only that are positive."""
    low_n = _kth_largest(score, k) if score.shape[1] <= SHORT else _kth_largest_maximum(score, k)
    # nothing that is not positive fires
    np.maximum(low_n, np.finfo(score.dtype).smallest_subnormal, out=low_n)
    mask = np.less(score, low_n[:, None])
    flat = positions(np.logical_not(mask, out=mask))
    start_n = row_starts(flat, *score.shape)
    count_n = start_n[1:] - start_n[:-1]
    width = int(count_n.max(initial=0))
    if width <= k:
        return flat
    value = score.reshape(-1).take(flat)
    padded = np.full((len(score), width), -np.inf, score.dtype)
    padded[np.arange(width) < count_n[:, None]] = value
    least_n = np.partition(padded, width - k, axis=1)[:, width - k]
    keep = ~(value < least_n.repeat(count_n))
    if np.count_nonzero(keep) > np.minimum(count_n, k).sum():
        _drop_ties(keep, value, least_n, count_n, k)
    return flat.compress(keep)


def row_starts(flat: Indices, rows: int, width: int) -> Indices:
    """Where the rows of a matrix start among rising flat indices, and the end, [rows + 1]."""
    starts: Indices = flat.searchsorted(np.arange(0, (rows + 1) * width, width))
    return starts


def _kth_largest(score: Floats, k: int) -> Floats:
    at = score.shape[1] - k
    kth: Floats = np.partition(score, at, axis=1)[:, at].copy()
    return kth


def _kth_largest_maximum(score: Floats, k: int) -> Floats:
    """A lower bound of each row's k-th largest entry: that of the maxima of strided groups."""
    n, width = score.shape
    size = 2 ** int(np.log2(max(1.0, (width / k) ** 0.5)) + 0.5)  # of a group; at least k groups
    groups = width // size
    if size == 1:
        return _kth_largest(score, k)
    strided = torch.from_numpy(score)[:, : groups * size].view(n, size, groups)
    return _kth_largest(strided.amax(1).numpy(), k)


def _drop_ties(keep: Mask, value: Floats, least_n: Floats, count_n: Indices, k: int) -> None:
    """Of the entries that equal their row's k-th largest, keep the first ones up to k; in place."""
    row_of = np.arange(len(count_n)).repeat(count_n)
    least = least_n[row_of]
    tied = np.flatnonzero(value == least)
    left_n = k - np.bincount(row_of[value > least], minlength=len(count_n))
    row = row_of[tied]
    tied_n = np.bincount(row, minlength=len(count_n))
    rank = np.arange(len(tied)) - (np.cumsum(tied_n) - tied_n)[row]
    keep[tied[rank >= left_n[row]]] = False


class BatchTopK:
    """The `wanted` largest of a batch's positive entries.

    The last batch's threshold is where the search starts; the result doesn't depend on it.
    """

    def __init__(self) -> None:
        self._floor = 0.0

    def __call__(self, score_nk: Floats, wanted: int) -> Indices:
        score = score_nk.reshape(-1)
        flat = positions(above(score_nk, self._floor))
        if len(flat) < wanted and self._floor > 0:
            flat = positions(above(score_nk, 0.0))
        if len(flat) <= wanted:
            return flat
        value = score[flat]
        least = np.partition(value, len(value) - wanted)[len(value) - wanted]
        keep = ~(value < least)
        extra = np.count_nonzero(keep) - wanted
        if extra:
            keep[np.flatnonzero(value == least)[-extra:]] = False
        self._floor = max(0.0, SLACK * float(least)) if np.isfinite(least) else 0.0
        return flat.compress(keep)
