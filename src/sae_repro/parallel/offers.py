"""Exact selection of the largest pre-activations over shards of the latents.

What a shard can contribute to the k largest of a token is among its own k largest: it offers these
values, and the k largest of all offers are those of the whole code.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from sae_repro.autoencoders import selection
from sae_repro.autoencoders.selection import Indices, row_starts
from sae_repro.training.steps.workspace import Floats


@dataclass
class Offers:
    """The entries of one shard's pre-activations that may be selected, and their values."""

    flat: Indices
    """Rising flat indices into u [N, K / S]."""
    place: Indices
    """Of each, its flat index into `values`."""
    values: Floats
    """[N, k'], or [1, k·N] of BatchTopK; filled up with 0, which is never selected."""

    @classmethod
    def of_tokens(cls, u_nk: Floats, k: int) -> Self:
        """TopK's: up to k per token."""
        flat = selection.top_k(u_nk, k)
        start_n = row_starts(flat, *u_nk.shape)
        row = np.arange(len(u_nk)).repeat(np.diff(start_n))
        place = np.arange(len(flat)) - start_n[row] + row * k
        return cls._of(u_nk, flat, place, (len(u_nk), k))

    @classmethod
    def of_batch(cls, u_nk: Floats, wanted: int) -> Self:
        """BatchTopK's: up to `wanted` of the batch."""
        flat = selection.BatchTopK()(u_nk, wanted)
        return cls._of(u_nk, flat, np.arange(len(flat)), (1, wanted))

    @classmethod
    def _of(cls, u_nk: Floats, flat: Indices, place: Indices, shape: tuple[int, int]) -> Self:
        values = np.zeros(shape, u_nk.dtype)
        values.reshape(-1)[place] = u_nk.reshape(-1).take(flat)
        return cls(flat, place, values)

    def selected(self, offered: list[Floats], shard: int, k: int) -> Indices:
        """Of `flat`, what is among the k largest of each row of what all shards have `offered`.

        This shard is number `shard`. Among equal values those of lower latents are taken; of
        BatchTopK those of the shards that come first.
        """
        chosen = np.zeros((len(self.values), sum(values.shape[1] for values in offered)), bool)
        chosen.reshape(-1)[selection.top_k(np.concatenate(offered, axis=1), k)] = True
        width = self.values.shape[1]
        own = chosen[:, shard * width : (shard + 1) * width]
        return self.flat.compress(own.reshape(-1).take(self.place))
