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
from sae_repro.training.steps.workspace import Workspace

BLOCK_BYTES = 1 << 20  # of rows that are written and read again while in the cache


@dataclass
class Residual:
    """How a code misses its batch, for every prefix."""

    squares: float
    """Σ over prefixes and tokens of ‖x − x̂‖²."""
    full: float
    """Of that the full code's."""
    left_nd: Tensor
    """x̂ − x of the full code."""
    first_nd: Tensor
    """x̂ − x summed over all prefixes."""
    summed: Tensor
    """The same over the prefixes that hold a group, for every group; laid out as it suits."""
    _scaled: tuple[float, Tensor] | None = None

    def scaled(self, scale: float) -> Tensor:
        """scale · `summed`, kept: the code's gradient and the decoder's ask for the same."""
        if self._scaled is None or self._scaled[0] != scale:
            self._scaled = scale, self.summed * scale
        return self._scaled[1]

    def sum_d(self) -> Tensor:
        """Σ of x̂ − x over prefixes and tokens, [D]."""
        return self.first_nd.sum(0)


class Layout(Protocol):
    """Entries of [N, K] and what a step does with values of them."""

    def per_latent(self, p_k: Tensor) -> Tensor:
        """For each entry the value of its latent, in a shape that broadcasts."""

    def sum_k(self, values: Tensor) -> Tensor:
        """Values summed over tokens, [K]."""

    def scratch(self, name: str, like: Tensor) -> Tensor:
        """A tensor for values of the entries; the next one of this name takes its place."""

    def residual(self, z: Tensor, w_dec: Tensor, target_nd: Tensor, name: str) -> Residual:
        """z·W_dec − target, for every prefix; `name`s apart those that are needed together."""

    def back(self, residual: Residual, w_dec: Tensor, scale: float, name: str) -> Tensor:
        """scale · ∂/∂z of ½ Σ‖residual‖², at each entry; `name` as of the residual."""

    def outer(self, values: Tensor, of: Residual | Tensor, scale: float, name: str) -> Rows:
        """scale · Σ_n values[n, k] · of[n], the rows of a gradient."""


class All:
    """Every entry: matrix products."""

    def __init__(self, n: int, d_sae: int, lengths: list[int], workspace: Workspace) -> None:
        self._shape, self._workspace = (n, d_sae), workspace
        self._lengths, self._groups = lengths, list(pairwise([0, *lengths]))

    def per_latent(self, p_k: Tensor) -> Tensor:
        """[K]."""
        return p_k

    def sum_k(self, values: Tensor) -> Tensor:
        """Values summed over tokens, [K]."""
        return values.sum(0)

    def scratch(self, name: str, like: Tensor) -> Tensor:
        """[N, K]."""
        return self._workspace.empty(f"{name}, scratch", *like.shape, like=like)

    def residual(self, z: Tensor, w_dec: Tensor, target_nd: Tensor, name: str) -> Residual:
        """The residuals summed up are [m, N, D]."""
        summed = self._workspace.empty(name, len(self._lengths), *target_nd.shape, like=z)
        z_nk, w_kd, parts = z.numpy(), w_dec.numpy(), summed.unbind()
        for part, (a, b) in zip(parts, self._groups, strict=True):
            multiply(z_nk[:, a:b], w_kd[a:b], part.numpy())
        parts[0].sub_(target_nd)
        for shorter, part in pairwise(parts):
            part.add_(shorter)
        squares, left = _squares(summed), parts[-1]
        full = squares if len(parts) == 1 else _squares(left)
        for part, shorter in pairwise(reversed(parts)):
            shorter.add_(part)
        return Residual(squares, full, left, parts[0], summed)

    def back(self, residual: Residual, w_dec: Tensor, scale: float, name: str) -> Tensor:
        """[N, K]."""
        values = self._workspace.empty(f"{name}, back", *self._shape, like=w_dec)
        parts, w_dk, out = residual.scaled(scale).numpy(), w_dec.numpy().T, values.numpy()
        for part, (a, b) in zip(parts, self._groups, strict=True):
            multiply(part, w_dk[:, a:b], out[:, a:b])
        return values

    def outer(self, values: Tensor, of: Residual | Tensor, scale: float, name: str) -> Rows:
        """Computed whole, at once."""
        if isinstance(of, Tensor):
            parts, groups = (of if scale == 1 else of * scale)[None], [(0, self._shape[1])]
        else:
            parts, groups = of.scaled(scale), self._groups
        out = self._workspace.empty(name, self._shape[1], parts.shape[2], like=values)
        values_kn, rows = values.numpy().T, out.numpy()
        for part, (a, b) in zip(parts.numpy(), groups, strict=True):
            multiply(values_kn[a:b], part, rows[a:b])
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
        self._by_latent = torch.from_numpy(by_latent)
        self._latent_start = _starts(self.col, d_sae)
        row_by_latent = row.astype(np.int32).take(by_latent)
        self._row_by_latent = self._part_by_latent = torch.from_numpy(row_by_latent)
        self._start = torch.from_numpy(start_n.astype(np.int32))
        if self._m > 1:
            ends = np.array(lengths)
            part = row * self._m + np.searchsorted(ends, self._latent, side="right")
            self._start = _starts(part, n * self._m)
            self._part_by_latent = torch.from_numpy(part.astype(np.int32).take(by_latent))

    def per_latent(self, p_k: Tensor) -> Tensor:
        """[nnz]."""
        return p_k[torch.from_numpy(self._latent)]

    def sum_k(self, values: Tensor) -> Tensor:
        """Values summed over tokens, [K]."""
        sums = np.bincount(self.col, values.numpy(), minlength=self._d_sae)
        return torch.from_numpy(sums).to(values.dtype)

    def scratch(self, name: str, like: Tensor) -> Tensor:
        """[nnz]; new each time."""
        return torch.empty_like(like)

    def residual(self, z: Tensor, w_dec: Tensor, target_nd: Tensor, name: str) -> Residual:
        """The residuals summed up are [N, D], or with prefixes [N·m, D] in rows of groups."""
        col = torch.from_numpy(self.col)
        if self._m == 1:
            left = _bag(w_dec, col, self._start, z).sub_(target_nd)
            squares = _squares(left)
            return Residual(squares, squares, left, left, left)
        m, d_in = self._m, target_nd.shape[1]
        summed = self._workspace.empty(name, self._n, m, d_in, like=z)
        left = torch.empty_like(target_nd)
        squares, rows = 0.0, max(1, BLOCK_BYTES // (m * d_in * z.element_size()))
        for a in range(0, self._n, rows):
            b = min(a + rows, self._n)
            start = self._start[a * m : b * m + 1]
            first, last = int(start[0]), int(start[-1])
            part = _bag(w_dec, col[first:last], start - first, z[first:last]).view(b - a, m, d_in)
            group = part.unbind(1)  # indexing anew would cost small batches more than the sums
            group[0].sub_(target_nd[a:b])
            for g in range(1, m):
                group[g].add_(group[g - 1])
            squares += _squares(part)
            left[a:b] = group[-1]
            for g in range(m - 2, -1, -1):
                group[g].add_(group[g + 1])
            summed[a:b] = part
        return Residual(squares, _squares(left), left, summed[:, 0], summed)

    def back(self, residual: Residual, w_dec: Tensor, scale: float, name: str) -> Tensor:
        """[nnz]."""
        return _dots(residual.summed.view(-1, w_dec.shape[1]), w_dec, self._start,
                     torch.from_numpy(self.col), scale)  # fmt: skip

    def outer(self, values: Tensor, of: Residual | Tensor, scale: float, name: str) -> Rows:
        """Computed in blocks, when asked for."""
        weight = values.index_select(0, self._by_latent)
        if scale != 1:
            weight.mul_(scale)
        if isinstance(of, Tensor):
            source, index = of, self._row_by_latent
        else:
            source, index = of.summed.view(-1, of.left_nd.shape[1]), self._part_by_latent

        def rows(a: int, b: int) -> Tensor:
            if b - a == self._d_sae:
                return _bag(source, index, self._latent_start, weight)
            start = self._latent_start[a : b + 1]
            first, last = int(start[0]), int(start[-1])
            bag = _bag(source, index[first:last], start - first, weight[first:last])
            out = self._workspace.empty(name, self._d_sae, bag.shape[1], like=bag)
            out[a:b] = bag
            return out[a:b]

        return rows


def _squares(x: Tensor) -> float:
    flat = x.numpy().reshape(-1)
    return float(np.dot(flat, flat))


def _starts(sorted_or_not: npt.NDArray[np.integer], bins: int) -> Tensor:
    """Where each bin starts once entries are sorted, and the end, [bins + 1] int32."""
    start = np.zeros(bins + 1, np.int32)
    np.cumsum(np.bincount(sorted_or_not, minlength=bins), out=start[1:])
    return torch.from_numpy(start)


def _bag(source: Tensor, index: Tensor, start: Tensor, weight: Tensor) -> Tensor:
    """Rows of `source` summed with weights, in the order of the entries: [len(start) − 1, D]."""
    if not len(index):
        return source.new_zeros(len(start) - 1, source.shape[1])
    sums: Tensor = torch.embedding_bag(source, index, start, False, 0, False, weight, True)[0]
    return sums


def _dots(left: Tensor, right: Tensor, start: Tensor, col: Tensor, scale: float) -> Tensor:
    """scale · left[row]·right[col] of the entries of a matrix by rows."""
    _silence_beta()
    pattern = torch.sparse_csr_tensor(
        start, col, left.new_zeros(len(col)), (len(left), len(right)), check_invariants=False
    )
    dots: Tensor = torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0, alpha=scale)
    return dots.values()


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
    u_nk: Tensor,
    found: Mask | Indices,
    lengths: list[int],
    workspace: Workspace,
    name: str,
) -> tuple["All | Few", Tensor]:
    """(layout, pre-activations at its entries) of the entries `found`: a mask or rising indices.

    The batch alone decides which layout. In `All`, those that are no entry of indices are 0.
    """
    n, d_sae = u_nk.shape
    masked = found.dtype == np.bool_
    if n * d_sae > DENSE_TO and (
        np.count_nonzero(found) if masked else len(found)
    ) <= SPARSE_BELOW * (n * d_sae):
        flat = np.flatnonzero(found) if masked else found.astype(np.int64, copy=False)
        few = Few(flat, n, d_sae, lengths, workspace)
        return few, torch.from_numpy(u_nk.numpy().reshape(-1).take(flat))
    if not masked:
        kept = workspace.empty(name, n, d_sae, like=u_nk).zero_()
        kept.numpy().reshape(-1)[found] = u_nk.numpy().reshape(-1)[found]
        u_nk = kept
    return All(n, d_sae, lengths, workspace), u_nk
