"""Named generators: every random choice has its own, derived from the seed in params.yaml.

No global generator is touched, and no generator carries state from step to step, so that a step
can be repeated from its number alone.
"""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random.bit_generator import ISeedSequence


class _Key(ISeedSequence):
    """Philox's key, as it stands; to give it as `key` costs three times as much, for entropy of the
    system is gathered beside it."""

    def __init__(self, key: bytes) -> None:
        self._words = np.frombuffer(key, "<u8")

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> npt.NDArray[Any]:
        """The two words that Philox asks for."""
        return self._words


def generator(*name: int | str) -> np.random.Generator:
    """The generator of this name, e.g. `generator(seed, cell_id, "order", epoch)`."""
    key = hashlib.sha256("/".join(str(part) for part in name).encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(_Key(key)))  # type: ignore[arg-type]
