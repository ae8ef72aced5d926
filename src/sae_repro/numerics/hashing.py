"""Fair choices without a generator: what is drawn depends on no order, batch or companion."""

from typing import Any

import numpy as np
import numpy.typing as npt


def uniform_hash(seed: int, *parts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each entry, a function of (seed, parts) alone (SplitMix64)."""
    with np.errstate(over="ignore"):
        state = np.full(len(parts[0]), seed, dtype=np.uint64)
        for part in parts:
            state = (state ^ part.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**53
