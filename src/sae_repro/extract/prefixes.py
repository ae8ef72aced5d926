"""Validation tokens whose whole prefix stands at the start of a training window, too.

The model reads nothing else than the tokens of a window up to a position: where two windows begin
alike, their activations are the same vector, and SAEs were trained on it.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from sae_repro.extract.passes import windows_within
from sae_repro.numerics.hashing import prefix_hashes
from sae_repro.params import Extract
from sae_repro.readers.documents import TokenDocuments

WINDOWS = 2048  # hashed at once


def seen_in_training(
    corpus: TokenDocuments,
    settings: Extract,
    limits: Mapping[str, int],
    left_out: Mapping[str, npt.NDArray[np.int64]],
) -> npt.NDArray[np.bool_]:
    """Of each validation row, in order, whether a training row has its very prefix.

    Rows are those that extraction keeps of at most `limits` tokens per split, less those whose
    numbers are in `left_out`; a prefix begins with BOS, if windows do. Memory holds the hashes of
    the validation rows.
    """

    def hashes(split: str) -> Iterator[npt.NDArray[np.uint64]]:
        return _hashes(corpus, split, settings, limits[split], left_out[split])

    of_rows = [*hashes("validation")]
    if not of_rows:
        return np.zeros(0, dtype=bool)
    held_out, place = np.unique(np.concatenate(of_rows), return_inverse=True)
    found = np.zeros(len(held_out), dtype=bool)
    for trained in hashes("train"):
        at = np.minimum(np.searchsorted(held_out, trained), len(held_out) - 1)
        found[at[held_out[at] == trained]] = True
    seen: npt.NDArray[np.bool_] = found[place]
    return seen


def _hashes(
    corpus: TokenDocuments,
    split: str,
    settings: Extract,
    limit: int,
    left_out: npt.NDArray[np.int64],
) -> Iterator[npt.NDArray[np.uint64]]:
    """The hash of each kept row's prefix, in order."""
    tokens = 0
    for batch in windows_within(corpus, split, settings, limit, WINDOWS):
        used = slice(int(batch.length.max()))
        hashes = prefix_hashes(batch.tokens[:, used])[batch.mask[:, used]]
        first, last = np.searchsorted(left_out, [tokens, tokens + len(hashes)])
        yield np.delete(hashes, left_out[first:last] - tokens)
        tokens += len(hashes)
