"""Mean, root mean square and median norm of a stream of activations, in fp64."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.extract.norms import Moments, Norms
from sae_repro.extract.state import State


class Statistics:
    """Accumulates rows [n, D]; independent of how they are cut into batches, to fp64 rounding."""

    def __init__(self, width: int) -> None:
        self._sum = np.zeros(width, dtype=np.float64)
        self._squares = 0.0
        self._rows = 0
        self._norms = Norms()
        self._first: npt.NDArray[Any] | None = None
        self._varies = False

    def add(self, rows: npt.NDArray[Any], moments: Moments | None = None) -> None:
        """Take `rows` [n, D] into account, and their `moments`, if they are known."""
        if self._first is None and len(rows):
            self._first = rows[0].copy()
        self._varies = self._varies or bool((rows != self._first).any())
        moments = moments or Moments.of(rows)
        self._sum += moments.sum
        self._squares += moments.squares
        self._norms.add(np.sqrt(moments.squared))
        self._rows += len(rows)

    def state(self) -> State:
        """The sums of now."""
        return {
            "sum": self._sum,
            "squares": self._squares,
            "rows": self._rows,
            "norms": self._norms.state(),
            "first": self._first,
            "varies": self._varies,
        }

    @classmethod
    def of(cls, state: State) -> "Statistics":
        """The statistics as they were."""
        measured = cls(len(state["sum"]))
        measured._sum, measured._squares = state["sum"], state["squares"]
        measured._rows, measured._norms = state["rows"], Norms.of(state["norms"])
        measured._first, measured._varies = state["first"], state["varies"]
        return measured

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """E x, [D]."""
        return self._sum / self._rows

    @property
    def rms(self) -> float:
        """√(E‖x‖²)."""
        return math.sqrt(self._squares / self._rows)

    @property
    def median_norm(self) -> float:
        """Median of ‖x‖, to 0.05 %: unlike the root mean square, a few huge rows leave it alone."""
        return self._norms.quantile(0.5)

    @property
    def constant(self) -> bool:
        """Whether all rows are 0, or several rows are all the same."""
        return not self._squares or (self._rows > 1 and not self._varies)
