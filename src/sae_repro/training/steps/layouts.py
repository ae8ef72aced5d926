"""Two ways to hold the entries of a code [N, K], with the same operations: all, or a few by row.

A step is written once, on either: values of entries are [N, K] in `All` and [nnz] in `Few`.
Reconstructions of prefixes share one decode: the part of x̂ between two lengths is decoded once,
errors are summed up over the parts, and residuals from the other end.
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.autoencoders.selection import Indices, Mask, row_starts
from sae_repro.numerics.products import multiply
from sae_repro.training.steps.gradients import Rows
from sae_repro.training.steps.workspace import Floats, Workspace

BLOCK_BYTES = 1 << 20  # of rows that are written and read again while in the cache


@dataclass
class Residual:
    """How a code misses its batch, for every prefix."""

    squares: float
    """Σ over prefixes and tokens of ‖x − x̂‖²."""
    full: float
    """Of that the full code's."""
    left_nd: Floats
    """x̂ − x of the full code."""
    first_nd: Floats
    """x̂ − x summed over all prefixes."""
    summed: Floats
    """The same over the prefixes that hold a group, for every group; laid out as it suits."""
    _scaled: tuple[float, Floats] | None = None

    def scaled(self, scale: float) -> Floats:
        """scale · `summed`, kept: the code's gradient and the decoder's ask for the same."""
        if self._scaled is None or self._scaled[0] != scale:
            self._scaled = scale, self.summed * scale
        return self._scaled[1]


class Layout(Protocol):
    """Entries of [N, K] and what a step does with values of them."""

    def per_latent(self, p_k: Floats) -> Floats:
        """For each entry the value of its latent, in a shape that broadcasts."""

    def sum_k(self, values: Floats) -> Floats:
        """Values summed over tokens, [K]."""

    def scratch(self, name: str, like: Floats) -> Floats:
        """An array for values of the entries; the next one of this name takes its place."""

    def residual(self, z: Floats, w_dec: Floats, target_nd: Floats, name: str) -> Residual:
        """z·W_dec − target, for every prefix; `name`s apart those that are needed together."""

    def back(self, residual: Residual, w_dec: Floats, scale: float, name: str) -> Floats:
        """scale · ∂/∂z of ½ Σ‖residual‖², at each entry; `name` as of the residual."""

    def outer(self, values: Floats, of: Residual | Floats, scale: float, name: str) -> Rows:
        """scale · Σ_n values[n, k] · of[n], the rows of a gradient."""


class All:
    """Every entry: matrix products."""

    def __init__(self, n: int, d_sae: int, lengths: list[int], workspace: Workspace) -> None:
        self._shape, self._workspace = (n, d_sae), workspace
        self._groups = list(pairwise([0, *lengths]))

    def per_latent(self, p_k: Floats) -> Floats:
        """[K]."""
        return p_k

    def sum_k(self, values: Floats) -> Floats:
        """Values summed over tokens, [K]."""
        return sum_rows(values)

    def scratch(self, name: str, like: Floats) -> Floats:
        """[N, K]."""
        return self._workspace.empty(f"{name}, scratch", *like.shape, like=like)

    def residual(self, z: Floats, w_dec: Floats, target_nd: Floats, name: str) -> Residual:
        """The residuals summed up are [m, N, D]."""
        summed = self._workspace.empty(name, len(self._groups), *target_nd.shape, like=z)
        for part, (a, b) in zip(summed, self._groups, strict=True):
            multiply(z[:, a:b], w_dec[a:b], part)
        summed[0] -= target_nd
        for shorter, part in pairwise(summed):
            part += shorter
        squares, left = squared(summed), summed[-1]
        full = squares if len(summed) == 1 else squared(left)
        for part, shorter in pairwise(summed[::-1]):
            shorter += part
        return Residual(squares, full, left, summed[0], summed)

    def back(self, residual: Residual, w_dec: Floats, scale: float, name: str) -> Floats:
        """[N, K]."""
        values = self._workspace.empty(f"{name}, back", *self._shape, like=w_dec)
        w_dk = w_dec.T
        for part, (a, b) in zip(residual.scaled(scale), self._groups, strict=True):
            multiply(part, w_dk[:, a:b], values[:, a:b])
        return values

    def outer(self, values: Floats, of: Residual | Floats, scale: float, name: str) -> Rows:
        """Computed whole, at once."""
        if isinstance(of, Residual):
            parts, groups = of.scaled(scale), self._groups
        else:
            parts, groups = (of if scale == 1 else of * scale)[None], [(0, self._shape[1])]
        out = self._workspace.empty(name, self._shape[1], parts.shape[2], like=values)
        values_kn = values.T
        for part, (a, b) in zip(parts, groups, strict=True):
            multiply(values_kn[a:b], part, out[a:b])
        return lambda a, b: out[a:b]


class Few:
    """The entries at rising flat indices: sums of the rows of W_dec, and of residuals, by entry.

    A row of a code with m prefixes counts as m rows, one for each group between two lengths.
    """

    def __init__(
        self,
        flat: Indices,
        n: int,
        d_sae: int,
        lengths: list[int],
        workspace: Workspace,
    ) -> None:
        self._n, self._d_sae, self._m = n, d_sae, len(lengths)
        self._workspace = workspace
        start_n = row_starts(flat, n, d_sae)
        row = np.arange(n).repeat(np.diff(start_n))
        self._latent = flat - row * d_sae
        self.col: npt.NDArray[np.int32] = self._latent.astype(np.int32)
        small = self._latent.astype(np.uint16) if d_sae <= 1 << 16 else self.col
        by_latent = np.argsort(small, kind="stable")  # a radix sort of small numbers
        self._col, self._by_latent = torch.from_numpy(self.col), by_latent
        self._latent_start = _starts(self.col, d_sae)
        row_by_latent = row.astype(np.int32).take(by_latent)
        self._row_by_latent = self._part_by_latent = torch.from_numpy(row_by_latent)
        self._start = torch.from_numpy(start_n.astype(np.int32))
        if self._m > 1:
            ends = np.array(lengths)
            part = row * self._m + np.searchsorted(ends, self._latent, side="right")
            self._start = _starts(part, n * self._m)
            self._part_by_latent = torch.from_numpy(part.astype(np.int32).take(by_latent))

    def per_latent(self, p_k: Floats) -> Floats:
        """[nnz]."""
        return p_k.take(self._latent)

    def sum_k(self, values: Floats) -> Floats:
        """Values summed over tokens, [K]."""
        sums = np.bincount(self.col, values, minlength=self._d_sae)
        return sums.astype(values.dtype, copy=False)

    def scratch(self, name: str, like: Floats) -> Floats:
        """[nnz]; new each time."""
        return np.empty_like(like)

    def residual(self, z: Floats, w_dec: Floats, target_nd: Floats, name: str) -> Residual:
        """The residuals summed up are [N, D], or with prefixes [N·m, D] in rows of groups."""
        if self._m == 1:
            left = _bag(w_dec, self._col, self._start, z)
            left -= target_nd
            squares = squared(left)
            return Residual(squares, squares, left, left, left)
        m, d_in = self._m, target_nd.shape[1]
        summed = self._workspace.empty(name, self._n, m, d_in, like=z)
        left = np.empty_like(target_nd)
        squares, rows = 0.0, max(1, BLOCK_BYTES // (m * d_in * z.itemsize))
        for a in range(0, self._n, rows):
            b = min(a + rows, self._n)
            start = self._start[a * m : b * m + 1]
            first, last = int(start[0]), int(start[-1])
            bag = _bag(w_dec, self._col[first:last], start - first, z[first:last])
            part = bag.reshape(b - a, m, d_in)
            group = part.transpose(1, 0, 2)
            group[0] -= target_nd[a:b]
            for shorter, longer in pairwise(group):
                longer += shorter
            squares += squared(part)
            left[a:b] = group[-1]
            for longer, shorter in pairwise(group[::-1]):
                shorter += longer
            summed[a:b] = part
        return Residual(squares, squared(left), left, summed[:, 0], summed)

    def back(self, residual: Residual, w_dec: Floats, scale: float, name: str) -> Floats:
        """[nnz]."""
        left = residual.summed.reshape(-1, w_dec.shape[1])
        return _dots(left, w_dec, self._start, self._col, scale)

    def outer(self, values: Floats, of: Residual | Floats, scale: float, name: str) -> Rows:
        """Computed in blocks, when asked for."""
        weight = values.take(self._by_latent)
        if scale != 1:
            weight *= scale
        if isinstance(of, Residual):
            source, index = of.summed.reshape(-1, of.left_nd.shape[1]), self._part_by_latent
        else:
            source, index = of, self._row_by_latent

        def rows(a: int, b: int) -> Floats:
            if b - a == self._d_sae:
                return _bag(source, index, self._latent_start, weight)
            start = self._latent_start[a : b + 1]
            first, last = int(start[0]), int(start[-1])
            bag = _bag(source, index[first:last], start - first, weight[first:last])
            out = self._workspace.empty(name, self._d_sae, bag.shape[1], like=bag)
            out[a:b] = bag
            return out[a:b]

        return rows


def squared(x: Floats) -> float:
    """Σ x² of an array that lies in one piece."""
    flat = x.reshape(-1)
    return float(np.dot(flat, flat))


def sum_rows(x: Floats) -> Floats:
    """[N, M] summed over its rows."""
    sums: Floats = torch.from_numpy(x).sum(0).numpy()
    return sums


def _starts(sorted_or_not: npt.NDArray[np.integer], bins: int) -> Tensor:
    """Where each bin starts once entries are sorted, and the end, [bins + 1] int32."""
    start = np.zeros(bins + 1, np.int32)
    np.cumsum(np.bincount(sorted_or_not, minlength=bins), out=start[1:])
    return torch.from_numpy(start)


def _bag(source: Floats, index: Tensor, start: Tensor, weight: Floats) -> Floats:
    """Rows of `source` summed with weights, in the order of the entries: [len(start) − 1, D]."""
    if not len(weight):
        return np.zeros((start.shape[0] - 1, source.shape[1]), source.dtype)
    rows, weights = torch.from_numpy(source), torch.from_numpy(weight)
    sums = torch.embedding_bag(rows, index, start, False, 0, False, weights, True)[0]
    bags: Floats = sums.numpy()
    return bags


def _dots(left: Floats, right: Floats, start: Tensor, col: Tensor, scale: float) -> Floats:
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


DENSE_TO = 1 << 14
"""Entries up to which all of a code costs less than to find those that fire: measured at D ≤ 64."""
SPARSE_BELOW = 0.1
"""Fraction of the entries up to which `Few` is faster than `All`: measured 0.17 at D 64, K 512, 0.2
at D 128, K 2048, and less the wider the rows are."""


def laid_out(
    u_nk: Floats,
    found: Mask | Indices,
    lengths: list[int],
    workspace: Workspace,
    name: str,
) -> tuple["All | Few", Floats]:
    """(layout, pre-activations at its entries) of the entries `found`: a mask or rising indices.

    The batch alone decides which layout. In `All`, those that are no entry of indices are 0.
    """
    n, d_sae = u_nk.shape
    masked = found.dtype == np.bool_
    if (
        u_nk.size > DENSE_TO
        and (np.count_nonzero(found) if masked else len(found)) <= SPARSE_BELOW * u_nk.size
    ):
        flat = np.flatnonzero(found) if masked else found.astype(np.int64, copy=False)
        return Few(flat, n, d_sae, lengths, workspace), u_nk.reshape(-1).take(flat)
    if not masked:
        kept = workspace.empty(name, n, d_sae, like=u_nk)
        kept.fill(0)
        kept.reshape(-1)[found] = u_nk.reshape(-1).take(found)
        u_nk = kept
    return All(n, d_sae, lengths, workspace), u_nk
