"""What latents do on the rows of a concept bank, by latent: nonzeros only, a block at a time.

The blocks keep memory bounded where a code is not sparse; the order of the rows within a latent is
the bank's, so that nothing that follows depends on batches or shards.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from torch import Tensor

from sae_repro.evaluate.concepts import ConceptBank

Batches = Callable[[], Iterable[tuple[Tensor, npt.NDArray[np.int32]]]]
"""Each call streams (a [n, K] ≥ 0, index [n, 3]) over all rows, in any batches and order."""

NONZEROS = 16_000_000  # of a block; about 20 bytes each while it is put together


def count_fired(batches: Batches) -> npt.NDArray[np.int64]:
    """Rows on which each latent fires, [K]."""
    return np.asarray(sum((a > 0).sum(0).cpu().numpy() for a, _ in batches()), dtype=np.int64)


def firings(
    batches: Batches, bank: ConceptBank, fired_k: npt.NDArray[np.int64], limit: int = NONZEROS
) -> Iterator[tuple[int, csr_array]]:
    """(first latent, a [latents, N] fp32) for blocks of at most `limit` nonzeros, or of one latent.

    Each block streams the batches once. `fired_k` says how large the blocks are.
    """
    for first, last in _blocks(fired_k, limit):
        rows: list[npt.NDArray[Any]] = []
        latents: list[npt.NDArray[Any]] = []
        values: list[npt.NDArray[Any]] = []
        for a_nk, index in batches():
            part = a_nk[:, first:last]
            row, latent = part.nonzero(as_tuple=True)
            values.append(part[row, latent].float().cpu().numpy())
            rows.append(bank.rows(index)[row.cpu().numpy()].astype(np.int32))
            latents.append(latent.cpu().numpy().astype(np.int32))
        block = csr_array(
            (np.concatenate(values), (np.concatenate(latents), np.concatenate(rows))),
            shape=(last - first, len(bank.fit)),
        )
        block.sort_indices()
        yield first, block


def _blocks(fired_k: npt.NDArray[np.int64], limit: int) -> Iterator[tuple[int, int]]:
    first, held = 0, 0
    for latent, fired in enumerate(fired_k.tolist()):
        if held and held + fired > limit:
            yield first, latent
            first, held = latent, 0
        held += fired
    yield first, len(fired_k)
