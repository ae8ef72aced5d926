"""All activations of all latents on the held-out tokens, latent by latent."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sae_repro.autoencoders import SAE
from sae_repro.evaluate.codes import code_of
from sae_repro.evaluate.quantiles import BINS, bin_of
from sae_repro.readers.shards import DOCUMENT, POSITION, ActivationStore, row_key

BATCH = 4096
"""Tokens encoded at once."""
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Firings:
    """The M nonzeros of a = z·‖d_k‖ on N tokens, by latent, then by document and position."""

    tokens: int
    """N."""
    key: npt.NDArray[np.int64]
    """[M]: document and position as one number (`row_key`)."""
    value: npt.NDArray[np.float32]
    """[M]."""
    begin: npt.NDArray[np.int64]
    """[K + 1]: latent k has those from begin[k] to begin[k + 1]."""

    def of(self, latent: int) -> tuple[Array, Array]:
        """(key, value) of one latent, by key."""
        part = slice(self.begin[latent], self.begin[latent + 1])
        return self.key[part], self.value[part]

    def at(self, latent: int, key: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The latent's activation on the tokens `key`; 0 where it is silent or they were unread."""
        known, value = self.of(latent)
        if not len(known):
            return np.zeros(len(key), dtype=np.float32)
        place = np.minimum(np.searchsorted(known, key), len(known) - 1)
        found: npt.NDArray[np.float32] = np.where(known[place] == key, value[place], np.float32(0))
        return found

    def histogram(self, latent: int) -> npt.NDArray[np.int64]:
        """[BINS]: counts per bin of `evaluate.quantiles`."""
        counts: npt.NDArray[np.int64] = np.bincount(bin_of(self.of(latent)[1]), minlength=BINS)
        return counts


def firings(sae: SAE, store: ActivationStore, hook: str) -> Firings:
    """Encode the validation tokens of `hook` once."""
    norm_k = sae.weights.W_dec.norm(dim=1).numpy()
    keys, latents, values = [], [], []
    tokens = 0
    for key, latent, value in _codes(sae, store, hook):
        keys.append(key)
        latents.append(latent)
        values.append((value * norm_k[latent]).astype(np.float32))
    index = store.index("validation")
    tokens = index.rows
    key, latent, value = (np.concatenate(part) for part in (keys, latents, values))
    order = np.lexsort((key, latent))
    begin = np.searchsorted(latent[order], np.arange(sae.d_sae + 1))
    return Firings(tokens, key[order], value[order], begin)


def _codes(sae: SAE, store: ActivationStore, hook: str) -> Iterator[tuple[Array, Array, Array]]:
    """(key, latent, z) of the nonzeros, batch by batch."""
    index = store.index("validation").batches(BATCH)
    shards = store.activations(hook, "validation").batches(BATCH)
    for rows, x_nd in zip(index, shards, strict=True):
        with torch.no_grad():
            z_nk = sae.encode(torch.from_numpy(np.array(x_nd, dtype=np.float32)))
        code = code_of(z_nk, rows)
        key = row_key(rows[:, DOCUMENT], rows[:, POSITION])
        yield key[code.row], code.latent, code.value
