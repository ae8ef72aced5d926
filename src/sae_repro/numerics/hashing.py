"""Hash draws: random choices that depend on no order, batch or companion.

`uniform_hash` is the one draw, salted by the name of its use; `fingerprint` is a document's content
as a key.
"""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt


def uniform_hash(seed: int, salt: str, *parts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each entry, a function of (seed, salt, parts) alone (SplitMix64).

    `salt` names the use, so that two uses of one seed draw independently; `parts` are integers [n].
    """
    name = hashlib.sha256(f"{seed}/{salt}".encode()).digest()[:8]
    with np.errstate(over="ignore"):
        state = np.full(len(parts[0]), int.from_bytes(name, "little"), dtype=np.uint64)
        for part in parts:
            state = _mixed(state, part)
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**53


def _mixed(state: npt.NDArray[np.uint64], part: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """One round of SplitMix64 over `part` [n]; the caller lets it overflow."""
    state = (state ^ part.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def prefix_hashes(tokens_nl: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Of each row of token ids [n, L], a 64-bit hash of its first 1, 2, … L tokens: [n, L].

    Integers alone: equal prefixes have equal hashes on every machine, in every batch. Of 10⁶ other
    prefixes, one has the hash of any of 10⁶ with probability 5·10⁻⁸.
    """
    hashes = np.empty(tokens_nl.shape, dtype=np.uint64)
    state = np.zeros(len(tokens_nl), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in range(tokens_nl.shape[1]):
            state = hashes[:, column] = _mixed(state, tokens_nl[:, column])
    return hashes


def least_hash(
    among: npt.NDArray[Any], n: int, seed: int, salt: str, *parts: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """At most `n` of the integers `among` [m], those of least hash, in its order.

    The hash is of (seed, salt, `parts`, entry): an entry's luck depends on no other entry.
    """
    draw = uniform_hash(seed, salt, *parts, among)
    if len(among) > n:  # spares the others' sorting
        likely = draw <= np.partition(draw, n - 1)[n - 1] if n else np.zeros(len(draw), dtype=bool)
        among, draw = among[likely], draw[likely]
    return among[np.lexsort((among, draw))[:n]]


def fingerprint(content: bytes, seed: int) -> bytes:
    """128 bits of a document's content, keyed by the seed: equal for exact copies."""
    return hashlib.blake2b(content, digest_size=16, key=str(seed).encode()).digest()
