"""The validation activations of a hook, and facts of them that are the same for every SAE."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.readers.shards import DOCUMENT, ActivationStore

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Batch = tuple[Tensor, npt.NDArray[np.int32]]
"""Activations x [n, D] fp32, and their index [n, 3]: document, position, token."""


def validation_batches(
    store: ActivationStore, hook: str, size: int, device: str
) -> Iterator[Batch]:
    """(x [n, D] fp32, index [n, 3]) over all validation activations."""
    return batches_of(store, hook, "validation", size, device)


def batches_of(
    store: ActivationStore, hook: str, split: str, size: int, device: str
) -> Iterator[Batch]:
    """(x [n, D] fp32, index [n, 3]) over all activations of a split."""
    shards = zip(
        store.activations(hook, split).batches(size), store.index(split).batches(size), strict=True
    )
    for x, index in shards:
        # a copy: the shard is mapped read-only
        yield torch.from_numpy(np.array(x, dtype=np.float32)).to(device), index


@dataclass(frozen=True)
class HeldOut:
    """Facts of the evaluated activations, whatever the SAE."""

    mean_d: Floats
    """x̄ [D] over all tokens."""
    document: Counts
    """Ids of the documents, sorted; the next two have a value per document."""
    tokens: Counts
    variance: Floats
    """Σ ‖x − x̄‖² over the document's tokens."""

    @classmethod
    def of(cls, batches: Callable[[], Iterable[Batch]], d_in: int) -> "HeldOut":
        """In two passes over `batches`, of at least one token; fp64 sums."""
        total_d, tokens = np.zeros(d_in), 0
        documents: list[npt.NDArray[Any]] = []
        for x_nd, index in batches():
            total_d += x_nd.double().sum(0).cpu().numpy()
            tokens += len(x_nd)
            documents.append(np.unique(index[:, DOCUMENT]))
        mean_d = total_d / max(tokens, 1)
        document = np.unique(np.concatenate(documents)).astype(np.int64)
        tokens_n, variance_n = np.zeros(len(document), dtype=np.int64), np.zeros(len(document))
        for x_nd, index in batches():
            centred = x_nd.double() - torch.from_numpy(mean_d).to(x_nd.device)
            place = np.searchsorted(document, index[:, DOCUMENT])
            np.add.at(tokens_n, place, 1)
            np.add.at(variance_n, place, centred.square().sum(1).cpu().numpy())
        return cls(mean_d, document, tokens_n, variance_n)


def held_out(store: ActivationStore, hook: str, size: int, device: str) -> HeldOut:
    """The facts of a hook's validation activations, measured once per process.

    `size` is that of the batches, which decides the last bits of x̄.
    """
    shards = store.activations(hook, "validation"), store.index("validation")
    return _measured(store.folder, hook, size, device, tuple(part.checksum for part in shards))


@lru_cache(maxsize=8)
def _measured(
    folder: Path, hook: str, size: int, device: str, checksums: tuple[str, ...]
) -> HeldOut:
    """`checksums` are those of the activations and of their index."""
    store = ActivationStore(folder)
    return HeldOut.of(lambda: validation_batches(store, hook, size, device), store.d_in(hook))
