"""Named generators: every random choice has its own, derived from the seed in params.yaml.

No global generator is touched, and no generator carries state from step to step, so that a step
can be repeated from its number alone.
"""

import hashlib

import numpy as np


def generator(*name: int | str) -> np.random.Generator:
    """The generator of this name, e.g. `generator(seed, cell_id, "order", epoch)`."""
    key = hashlib.sha256("/".join(str(part) for part in name).encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
