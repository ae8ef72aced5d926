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

from sae_repro.readers.joined import LevelledStore
from sae_repro.readers.shards import DOCUMENT, POSITION, ActivationStore, row_key

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Batch = tuple[Tensor, npt.NDArray[np.int32]]
"""Activations x [n, D] fp32, and their index [n, 3]: document, position, token."""
NONE = np.empty(0, dtype=np.int64)


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
    unseen_tokens: Counts
    unseen_variance: Floats
    """The same over those tokens whose prefix no training row has."""
    unseen_key: npt.NDArray[np.int64]
    """`row_key` of these tokens, sorted."""

    @classmethod
    def of(
        cls,
        batches: Callable[[], Iterable[Batch]],
        d_in: int,
        unseen_key: npt.NDArray[np.int64] = NONE,
    ) -> "HeldOut":
        """In two passes over `batches`, of at least one token; fp64 sums."""
        total_d, tokens = np.zeros(d_in), 0
        documents: list[npt.NDArray[Any]] = []
        for x_nd, index in batches():
            total_d += x_nd.double().sum(0).cpu().numpy()
            tokens += len(x_nd)
            documents.append(np.unique(index[:, DOCUMENT]))
        mean_d = total_d / max(tokens, 1)
        document = np.unique(np.concatenate(documents)).astype(np.int64)
        n = len(document)
        facts = cls(
            mean_d=mean_d,
            document=document,
            tokens=np.zeros(n, dtype=np.int64),
            variance=np.zeros(n),
            unseen_tokens=np.zeros(n, dtype=np.int64),
            unseen_variance=np.zeros(n),
            unseen_key=unseen_key,
        )
        for x_nd, index in batches():
            centred = x_nd.double() - torch.from_numpy(mean_d).to(x_nd.device)
            square = centred.square().sum(1).cpu().numpy()
            place, unseen = np.searchsorted(document, index[:, DOCUMENT]), facts.unseen(index)
            np.add.at(facts.tokens, place, 1)
            np.add.at(facts.variance, place, square)
            np.add.at(facts.unseen_tokens, place[unseen], 1)
            np.add.at(facts.unseen_variance, place[unseen], square[unseen])
        return facts

    def unseen(self, index: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Of each row of `index` [n, 3], whether it is among `unseen_key`."""
        key = row_key(index[:, DOCUMENT], index[:, POSITION])
        if not len(self.unseen_key):
            return np.zeros(len(key), dtype=bool)
        # a search in what is sorted already: `np.isin` would sort or hash it for every batch
        at = np.minimum(np.searchsorted(self.unseen_key, key), len(self.unseen_key) - 1)
        found: npt.NDArray[np.bool_] = self.unseen_key[at] == key
        return found

    @property
    def offset(self) -> float | None:
        """γ = ‖μ‖ / ‖σ‖, how far the mean lies from 0 in the activations' own spread.

        None for activations that are all alike. Source: arXiv 2605.31518.
        """
        variance = float(self.variance.sum()) / max(int(self.tokens.sum()), 1)
        return float(np.sqrt(np.square(self.mean_d).sum() / variance)) if variance > 0 else None


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
    store = LevelledStore(folder)
    return HeldOut.of(
        lambda: validation_batches(store, hook, size, device), store.d_in(hook), unseen_key(store)
    )


def unseen_key(store: ActivationStore) -> npt.NDArray[np.int64]:
    """`row_key` of the validation tokens whose prefix no training row has, sorted.

    None of them where rows are no tokens, or where it is not known.
    """
    seen = store.seen()
    if seen is None:
        return NONE
    index = store.index("validation").whole()[~seen]
    return np.sort(row_key(index[:, DOCUMENT], index[:, POSITION]))
