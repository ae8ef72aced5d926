"""Products and sums of a step: of whole matrices, and over a few entries of them."""

from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.numerics.products import install, multiply
from sae_repro.training.steps.workspace import Floats


def product(a: Floats, b: Floats, out: Floats) -> None:
    """a @ b of matrices into `out`."""
    multiplier()(a, b, out)


def multiplier() -> Callable[[Floats, Floats, Floats], object]:
    """`product` as this process has to compute it, for those who need several.

    With one thread whole: the blocks in which several would share it cost 4 to 24 % of its time.
    """
    whole = torch.get_num_threads() == 1 and install.cache_info().currsize
    return np.matmul if whole else multiply


def squared(x: Floats) -> float:
    """Σ x² of an array that lies in one piece."""
    flat = x.reshape(-1)
    return float(flat.dot(flat))


def sum_rows(x: Floats) -> Floats:
    """[N, M] summed over its rows."""
    sums: Floats = np.matmul(_ones(len(x), x.dtype), x)
    return sums


@lru_cache(maxsize=8)
def _ones(n: int, dtype: np.dtype[np.floating]) -> Floats:
    ones = np.ones(n, dtype)
    ones.setflags(write=False)
    return ones


def plus(x: Floats, more: Floats) -> None:
    """Add a number per column to a matrix in place; numpy takes twice as long."""
    torch.from_numpy(x).add_(torch.from_numpy(more))


def rectified(x: Floats) -> Floats:
    """max(x, 0) in the place of x, NaN where x is; numpy takes five times as long."""
    torch.from_numpy(x).relu_()
    return x


def starts(counts: npt.NDArray[np.integer]) -> Tensor:
    """Where bins of so many entries start once these are sorted, and the end: one more, int32."""
    start = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=start[1:])
    return torch.from_numpy(start)


def bag(source: Floats, index: Tensor, start: Tensor, weight: Floats) -> Floats:
    """Rows of `source` summed with weights, in the order of the entries: [len(start) − 1, D]."""
    if not len(weight):
        return np.zeros((start.shape[0] - 1, source.shape[1]), source.dtype)
    rows, weights = torch.from_numpy(source), torch.from_numpy(weight)
    sums = torch.embedding_bag(rows, index, start, False, 0, False, weights, True)[0]
    bags: Floats = sums.numpy()
    return bags


def dots(left: Floats, right: Floats, start: Tensor, col: Tensor, scale: float) -> Floats:
    """scale · left[row]·right[col] of the entries of a matrix by rows."""
    _silence_beta()
    rows, columns = torch.from_numpy(left), torch.from_numpy(right)
    pattern = torch.sparse_csr_tensor(
        start, col, rows.new_zeros(col.shape[0]), (len(left), len(right)), check_invariants=False
    )
    dots = torch.sparse.sampled_addmm(pattern, rows, columns.T, beta=0.0, alpha=scale)
    values: Floats = dots.values().numpy()
    return values


@cache
def _silence_beta() -> None:
    """Torch says once in a process that matrices by rows are in beta: let it say so unheard."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        none = torch.zeros(1, dtype=torch.int32)
        torch.sparse_csr_tensor(
            torch.cat([none, none]), none[:0], torch.zeros(0), (1, 1), check_invariants=False
        )
