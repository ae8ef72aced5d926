"""Norms of activations: their distribution in bounded memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.extract.state import State

Floats = npt.NDArray[np.float64]
Rows = Mapping[str, npt.NDArray[Any]]

_BITS = 10  # of the mantissa: neighbouring bins lie 2^-10 apart, so that a middle is off by 2^-11
_SHIFT = 23 - _BITS
WAITING = 2**16  # norms that wait to be counted
POSITIONS = 4
"""Positions of a row, from its first, that are counted one by one."""


@dataclass(frozen=True)
class Moments:
    """Of rows [n, D], in fp64: Σ x [D], Σ ‖x‖², and ‖x‖² of each [n]."""

    sum: Floats
    squares: float
    squared: Floats

    @classmethod
    def of(cls, rows_nd: npt.NDArray[Any]) -> "Moments":
        """The same on every processor."""
        rows_nd = rows_nd.astype(np.float64)
        total = rows_nd.sum(axis=0)
        squared_nd = np.square(rows_nd, out=rows_nd)
        return cls(total, float(squared_nd.sum()), squared_nd.sum(axis=1))


def squared_norms(rows_nd: npt.NDArray[Any]) -> Floats:
    """‖x‖² of each row [n], in fp64: the same on every processor."""
    rows_nd = rows_nd.astype(np.float64)
    squared: Floats = np.square(rows_nd, out=rows_nd).sum(axis=1)
    return squared


class Norms:
    """The distribution of norms: each counted in a bin 2^-10 wide, relative to it.

    Quantiles are good to 0.05 %, the largest is exact; none depends on the order of arrival.
    """

    def __init__(self) -> None:
        self._bins = np.zeros(0, dtype=np.int64)
        self._counts = np.zeros(0, dtype=np.int64)
        self._waiting: list[npt.NDArray[np.int64]] = []
        self._n_waiting = 0
        self.max = 0.0

    def add(self, norms: Floats) -> None:
        """Take `norms` [n] into account."""
        if not len(norms):
            return
        self.max = max(self.max, float(norms.max()))
        single = np.minimum(norms, np.finfo(np.float32).max).astype(np.float32)
        self._waiting.append(single.view(np.uint32).astype(np.int64) >> _SHIFT)
        self._n_waiting += len(norms)
        if self._n_waiting >= WAITING:
            self._count()

    def _count(self) -> None:
        bins, inverse = np.unique(np.concatenate([self._bins, *self._waiting]), return_inverse=True)
        counts = np.bincount(inverse[len(self._bins) :], minlength=len(bins))
        counts[inverse[: len(self._bins)]] += self._counts
        self._bins, self._counts, self._waiting, self._n_waiting = bins, counts, [], 0

    def state(self) -> State:
        """The counts of now."""
        if self._waiting:
            self._count()
        return {"bins": self._bins, "counts": self._counts, "max": self.max}

    @classmethod
    def of(cls, state: State) -> "Norms":
        """The distribution as it was."""
        norms = cls()
        norms._bins, norms._counts, norms.max = state["bins"], state["counts"], state["max"]
        return norms

    def __len__(self) -> int:
        """How many norms there were."""
        return int(self._counts.sum()) + self._n_waiting

    def quantile(self, fraction: float) -> float:
        """The smallest norm that at least `fraction` of all do not exceed, up to its bin."""
        self._count()
        if not len(self._counts):
            raise ValueError("no norm was added")
        within = np.cumsum(self._counts)
        at = int(np.searchsorted(within, fraction * within[-1], side="left"))
        ends = (np.array([self._bins[at], self._bins[at] + 1]) << _SHIFT).astype(np.uint32)
        low, high = ends.view(np.float32).tolist()
        return min((low + high) / 2, self.max) if low > 0 else 0.0


class NormReport:
    """Norms at one hook, before any token is left out: of all real tokens, and by position."""

    def __init__(self) -> None:
        self.tokens = Norms()
        self.positions = [Norms() for _ in range(POSITIONS)]

    def add(self, norms: Floats, column: npt.NDArray[np.int64], first: Floats) -> None:
        """Take real tokens' `norms` [n], at positions `column` of their rows, and first ones'."""
        self.tokens.add(norms)
        self.positions[0].add(first)
        for position in range(1, POSITIONS):
            self.positions[position].add(norms[column == position])

    def state(self) -> State:
        """The counts of now."""
        positions = [norms.state() for norms in self.positions]
        return {"tokens": self.tokens.state(), "positions": positions}

    @classmethod
    def of(cls, state: State) -> "NormReport":
        """The report as it was."""
        report = cls()
        report.tokens = Norms.of(state["tokens"])
        report.positions = [Norms.of(norms) for norms in state["positions"]]
        return report

    def facts(self) -> dict[str, Any]:
        """Median, 99.9 % quantile and largest; median and largest of a row's first positions."""
        return {
            "median": self.tokens.quantile(0.5),
            "q999": self.tokens.quantile(0.999),
            "max": self.tokens.max,
            "positions": {
                str(position): {"median": norms.quantile(0.5), "max": norms.max}
                for position, norms in enumerate(self.positions)
                if len(norms)
            },
        }

    def summary(self) -> str:
        """The distribution on one line."""
        tokens, first = self.tokens, self.positions[0]
        return (
            f"norm {tokens.quantile(0.5):.4g} (median), {tokens.quantile(0.999):.4g} (99.9 %), "
            f"{tokens.max:.4g} (largest); at a row's first position {first.quantile(0.5):.4g}"
        )
