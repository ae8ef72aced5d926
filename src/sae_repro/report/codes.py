"""An SAE's code of all validation tokens, encoded once more: evaluation keeps what it summed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csc_array

from sae_repro.autoencoders import SAE
from sae_repro.readers.shards import DOCUMENT, POSITION, TOKEN, ActivationStore, row_key

BATCH = 4096  # rows encoded at once
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ValidationRows:
    """The tokens that every SAE is evaluated on, in the store's order."""

    index: npt.NDArray[np.int32]
    """[N, 3]: document, position, token id."""
    order: npt.NDArray[np.int64]
    """The rows by document and position."""

    @classmethod
    def read(cls, store: ActivationStore) -> "ValidationRows":
        """Those of artifacts/extract."""
        index = store.index("validation").whole()
        return cls(index, np.argsort(cls._key(index), kind="stable"))

    @staticmethod
    def _key(index: Array) -> npt.NDArray[np.int64]:
        return row_key(index[:, DOCUMENT], index[:, POSITION])

    @property
    def tokens(self) -> npt.NDArray[np.int32]:
        """The token id of each row [N]."""
        return self.index[:, TOKEN]

    def of(self, document: Array, position: Array) -> npt.NDArray[np.int64]:
        """The row of each token; −1 of one that is none, as a row's first."""
        sorted_keys = self._key(self.index)[self.order]
        key = row_key(document, position)
        place = np.minimum(np.searchsorted(sorted_keys, key), len(sorted_keys) - 1)
        return np.where(sorted_keys[place] == key, self.order[place], -1)


def activations(sae: SAE, store: ActivationStore, hook: str) -> csc_array:
    """Canonical activations a = z·‖d_k‖, fp32 [N, K], of the validation tokens at `hook`."""
    norm_k = sae.weights.W_dec.norm(dim=1)
    values, rows, latents = [], [], []
    offset = 0
    for x_nd in store.activations(hook, "validation").batches(BATCH):
        with torch.no_grad():
            a_nk = (sae.encode(torch.from_numpy(np.array(x_nd)).float()) * norm_k).numpy()
        row, latent = a_nk.nonzero()
        values.append(a_nk[row, latent])
        rows.append((row + offset).astype(np.int64))
        latents.append(latent.astype(np.int64))
        offset += len(x_nd)
    value, row_m, latent_m = (np.concatenate(parts) for parts in (values, rows, latents))
    a_nk = csc_array((value, (row_m, latent_m)), shape=(offset, sae.d_sae))
    a_nk.sort_indices()
    return a_nk


def looked_up(a_nk: csc_array, row: Array, latent: Array) -> npt.NDArray[np.float64]:
    """The activation of each (row, latent) [m]; 0 of a row −1."""
    n = a_nk.shape[0]
    stored = np.repeat(np.arange(a_nk.shape[1]), np.diff(a_nk.indptr)) * n + a_nk.indices
    if not len(stored):
        return np.zeros(len(row))
    wanted = latent.astype(np.int64) * n + row
    place = np.minimum(np.searchsorted(stored, wanted), len(stored) - 1)
    found = (stored[place] == wanted) & (row >= 0)
    return np.where(found, a_nk.data[place], 0.0).astype(np.float64)
