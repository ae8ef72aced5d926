"""Activations on the rows of a concept bank by latent: nonzeros only, a block at a time.

The blocks keep memory bounded where a code is not sparse; the order of the rows within a latent is
the bank's, so that nothing that follows depends on batches or shards.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sae_repro.concepts.bank import ConceptBank
from sae_repro.evaluate.codes import Codes

NONZEROS = 16_000_000  # of a block; about 20 bytes each while it is put together


def firings(
    codes: Codes, bank: ConceptBank, fired_k: npt.NDArray[np.int64], limit: int = NONZEROS
) -> Iterator[tuple[int, csr_array]]:
    """(first latent, a [latents, N] fp32) for blocks of at most `limit` nonzeros, or of one latent.

    Each block streams the codes once. `fired_k` says how large the blocks are.
    """
    for first, last in blocks(fired_k, limit):
        rows: list[npt.NDArray[Any]] = []
        latents: list[npt.NDArray[Any]] = []
        values: list[npt.NDArray[Any]] = []
        for code in codes():
            inside: npt.NDArray[np.bool_] | slice = slice(None)
            if (first, last) != (0, len(fired_k)):
                inside = (first <= code.latent) & (code.latent < last)
            values.append(code.value[inside].astype(np.float32))
            rows.append(bank.rows(code.index)[code.row[inside]].astype(np.int32))
            latents.append((code.latent[inside] - first).astype(np.int32))
        block = csr_array(
            (np.concatenate(values), (np.concatenate(latents), np.concatenate(rows))),
            shape=(last - first, len(bank.fit)),
        )
        block.sort_indices()
        yield first, block


def blocks(
    fired_k: npt.NDArray[np.integer[Any]], limit: int, most: int | None = None
) -> Iterator[tuple[int, int]]:
    """(first, last) latents, the last exclusive, of blocks of at most `limit` nonzeros, or of one.

    `most` bounds a block's latents, too; `fired_k` are the nonzeros of each.
    """
    first, size = 0, 0
    for latent, fired in enumerate(fired_k.tolist()):
        if (size and size + fired > limit) or latent - first == most:
            yield first, latent
            first, size = latent, 0
        size += fired
    yield first, len(fired_k)
