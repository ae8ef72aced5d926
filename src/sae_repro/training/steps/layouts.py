"""Two ways to hold the entries of a code [N, K], with the same operations: all, or a few by row.

A step is written once, on either: values of entries are [N, K] in `All` and [nnz] in `Few`.
Reconstructions of prefixes share one decode: the part of x̂ between two lengths is decoded once,
errors are summed up over the parts, and residuals from the other end.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch

from sae_repro.autoencoders.selection import Indices, Mask, positions, row_starts
from sae_repro.params import Cell
from sae_repro.training.steps.bags import bag, dots, multiplier, squared, starts, sum_rows
from sae_repro.training.steps.gradients import Rows
from sae_repro.training.steps.nesting import Nesting, nested
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

    def __init__(
        self, n: int, d_sae: int, lengths: list[int], workspace: Workspace, weight_m: Floats | None
    ) -> None:
        self._shape, self._workspace, self._weight_m = (n, d_sae), workspace, weight_m
        self._groups = list(pairwise([0, *lengths]))
        self._multiply = multiplier()

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
            self._multiply(z[:, a:b], w_dec[a:b], part)
        summed[0] -= target_nd
        for shorter, part in pairwise(summed):
            part += shorter
        squares, left = squared(summed), summed[-1]
        full = squares if len(summed) == 1 else squared(left)
        if self._weight_m is not None:
            weight_m, left = self._weight_m.astype(z.dtype), left.copy()
            squares = sum(
                float(w) * squared(part) for w, part in zip(weight_m, summed, strict=True)
            )
            summed *= weight_m[:, None, None]
        for part, shorter in pairwise(summed[::-1]):
            shorter += part
        return Residual(squares, full, left, summed[0], summed)

    def back(self, residual: Residual, w_dec: Floats, scale: float, name: str) -> Floats:
        """[N, K]."""
        values = self._workspace.empty(f"{name}, back", *self._shape, like=w_dec)
        w_dk = w_dec.T
        for part, (a, b) in zip(residual.scaled(scale), self._groups, strict=True):
            self._multiply(part, w_dk[:, a:b], values[:, a:b])
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
            self._multiply(values_kn[a:b], part, out[a:b])
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
        weight_m: Floats | None,
        nesting: Nesting | None = None,
    ) -> None:
        self._n, self._d_sae, self._m = n, d_sae, len(lengths)
        self._workspace, self._weight = workspace, weight_m
        if nesting is not None:
            flat, self._m, self._weight = nesting.flat, nesting.m, nesting.weight
        start_n = row_starts(flat, n, d_sae)
        row = np.arange(n).repeat(np.diff(start_n))
        self.latent = flat - row * d_sae
        col: npt.NDArray[np.int32] = self.latent.astype(np.int32)
        small = self.latent.astype(np.uint16) if d_sae <= 1 << 16 else col
        by_latent = np.argsort(small, kind="stable")  # a radix sort of small numbers
        self._col, self._by_latent = torch.from_numpy(col), by_latent
        self.count_k = np.bincount(self.latent, minlength=d_sae)
        self._latent_start = starts(self.count_k)
        row_by_latent = row.astype(np.int32).take(by_latent)
        self._row_by_latent = self._part_by_latent = torch.from_numpy(row_by_latent)
        self._start = torch.from_numpy(start_n.astype(np.int32))
        if self._m > 1:
            group = (
                np.searchsorted(np.array(lengths), self.latent, side="right")
                if nesting is None
                else nesting.group
            )
            part = row * self._m + group
            self._start = starts(np.bincount(part, minlength=n * self._m))
            self._part_by_latent = torch.from_numpy(part.astype(np.int32).take(by_latent))

    def per_latent(self, p_k: Floats) -> Floats:
        """[nnz]."""
        return p_k.take(self.latent)

    def sum_k(self, values: Floats) -> Floats:
        """Values summed over tokens, [K]."""
        sums = np.bincount(self.latent, values, minlength=self._d_sae)
        return sums.astype(values.dtype, copy=False)

    def scratch(self, name: str, like: Floats) -> Floats:
        """[nnz]; new each time."""
        return np.empty_like(like)

    def residual(self, z: Floats, w_dec: Floats, target_nd: Floats, name: str) -> Residual:
        """The residuals summed up are [N, D], or with prefixes [N·m, D] in rows of groups."""
        if self._m == 1:
            left = bag(w_dec, self._col, self._start, z)
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
            sums = bag(w_dec, self._col[first:last], start - first, z[first:last])
            part = sums.reshape(b - a, m, d_in)
            group = part.transpose(1, 0, 2)
            group[0] -= target_nd[a:b]
            for shorter, longer in pairwise(group):
                longer += shorter
            left[a:b] = group[-1]
            if self._weight is None:
                squares += squared(part)
            else:
                weight = self._weight if self._weight.ndim == 1 else self._weight[a:b]
                weight = weight.astype(z.dtype)
                squares += float((np.square(part).sum(2) * weight).sum())
                part *= weight[..., None]
            totals = summed[a:b].transpose(1, 0, 2)
            totals[-1] = group[-1]
            for number in range(m - 2, -1, -1):
                np.add(group[number], totals[number + 1], out=totals[number])
        return Residual(squares, squared(left), left, summed[:, 0], summed)

    def back(self, residual: Residual, w_dec: Floats, scale: float, name: str) -> Floats:
        """[nnz]."""
        left = residual.summed.reshape(-1, w_dec.shape[1])
        return dots(left, w_dec, self._start, self._col, scale)

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
                return bag(source, index, self._latent_start, weight)
            start = self._latent_start[a : b + 1]
            first, last = int(start[0]), int(start[-1])
            sums = bag(source, index[first:last], start - first, weight[first:last])
            out = self._workspace.empty(name, self._d_sae, sums.shape[1], like=sums)
            out[a:b] = sums
            return out[a:b]

        return rows


def nested_out(
    cell: Cell,
    u_nk: Floats,
    found: Indices,
    norm_k: Floats | None,
    lengths: list[int],
    workspace: Workspace,
) -> tuple[Few, Floats]:
    """As `laid_out` for prefixes that follow what fires on each token."""
    nesting = nested(cell, u_nk, found, norm_k, lengths)
    n, d_sae = u_nk.shape
    layout = Few(nesting.flat, n, d_sae, lengths, workspace, None, nesting)
    return layout, u_nk.reshape(-1).take(nesting.flat)


DENSE_TO = 1 << 14
"""Entries up to which all of a code costs less than to find those that fire: measured at D ≤ 64."""
SPARSE_BELOW = 0.1
"""Fraction of the entries up to which `Few` is faster than `All`."""
NARROW, MORE_WHERE_NARROW = 128, 1.25
"""Width of the rows up to which it is that many times as large: measured 0.13 at D 64, K 2048, 0.17
to 0.2 at D 64 with fewer latents and at D 128, and less the wider the rows are."""


def laid_out(
    u_nk: Floats,
    found: Mask | Indices,
    d_in: int,
    lengths: list[int],
    workspace: Workspace,
    name: str,
    weight_m: Floats | None = None,
) -> tuple["All | Few", Floats]:
    """(layout, pre-activations at its entries) of the entries `found`: a mask or rising indices.

    The batch alone decides which layout. In `All`, those that are no entry of indices are 0.
    `weight_m` are the prefixes' weights, with mean 1; None: all the same.
    """
    n, d_sae = u_nk.shape
    masked = found.dtype == np.bool_
    count = int(np.count_nonzero(found)) if masked else len(found)
    share = SPARSE_BELOW * (MORE_WHERE_NARROW if d_in <= NARROW else 1)
    if u_nk.size > DENSE_TO and count <= share * u_nk.size:
        flat = positions(cast(Mask, found), count) if masked else cast(Indices, found)
        return Few(flat, n, d_sae, lengths, workspace, weight_m), u_nk.reshape(-1).take(flat)
    if not masked:
        kept = workspace.empty(name, n, d_sae, like=u_nk)
        kept.fill(0)
        kept.reshape(-1)[found] = u_nk.reshape(-1).take(found)
        u_nk = kept
    return All(n, d_sae, lengths, workspace, weight_m), u_nk
