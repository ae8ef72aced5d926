"""Mean and root mean square of a stream of activations, in fp64."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt


class Statistics:
    """Accumulates rows [n, D]; independent of how they are cut into batches, to fp64 rounding."""

    def __init__(self, width: int) -> None:
        self._sum = np.zeros(width, dtype=np.float64)
        self._squares = 0.0
        self._rows = 0

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Take `rows` [n, D] into account."""
        rows = rows.astype(np.float64)
        self._sum += rows.sum(axis=0)
        self._squares += float(np.square(rows).sum())
        self._rows += len(rows)

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """E x, [D]."""
        return self._sum / self._rows

    @property
    def rms(self) -> float:
        """√(E‖x‖²)."""
        return math.sqrt(self._squares / self._rows)
