"""Arrays that outlive a step: fresh memory costs more than a pass over it."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


class Workspace:
    """Named arrays without a value that means anything, made when first asked for."""

    def __init__(self) -> None:
        self._arrays: dict[str, Floats] = {}

    def empty(self, name: str, *shape: int, like: Floats) -> Floats:
        """The array `name` of this shape, and of the dtype of `like`; its content is arbitrary."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape or array.dtype != like.dtype:
            array = self._arrays[name] = np.empty(shape, dtype=like.dtype)
        return array
