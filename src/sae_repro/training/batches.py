"""Training batches: a pure function of the step's number and the cell's seeds."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from sae_repro.numerics.random import generator
from sae_repro.readers.shards import Shards


class Batches:
    """`steps` batches of exactly `batch_size` rows, of as many epochs as they take.

    An epoch visits every row once, its ragged end apart; the last one may stop anywhere.

    Shards come in a random order, rows in a random order within their shard; both are drawn anew
    each epoch from generators named after (seed, cell, epoch). Shards were shuffled when written.
    """

    def __init__(
        self, shards: Shards, batch_size: int, steps: int, *, seed: int, cell_id: str
    ) -> None:
        self._shards, self._size = shards, batch_size
        self._seed, self._cell_id = seed, cell_id
        self._per_epoch = shards.rows // batch_size
        self.steps = steps if self._per_epoch else 0

    def starting_at(self, step: int) -> Iterator[Tensor]:
        """The batches [B, D] fp32 of steps `step`, `step` + 1, …"""
        while step < self.steps:
            epoch, within = divmod(step, self._per_epoch)
            for batch in islice(self._epoch(epoch, within), self.steps - step):
                yield batch
                step += 1

    def _epoch(self, epoch: int, first: int) -> Iterator[Tensor]:
        rng = generator(self._seed, self._cell_id, "order", epoch)
        order = rng.permutation(len(self._shards.entries))
        skip = first * self._size
        remainder = torch.empty(0)
        for number in order.tolist():
            rows = self._shards.entries[number]["rows"]
            if skip >= rows:
                skip -= rows
                continue
            within = generator(self._seed, self._cell_id, "rows", epoch, number).permutation(rows)
            chunk = np.asarray(self._shards.load(number))[within[skip:]].astype(np.float32)
            skip = 0
            x_nd = torch.from_numpy(chunk)
            if len(remainder):
                x_nd = torch.cat([remainder, x_nd])
            usable = len(x_nd) // self._size * self._size
            if usable:  # split() of no rows gives one batch of none
                yield from x_nd[:usable].split(self._size)
            remainder = x_nd[usable:]

    def sample(self, rows: int, *name: int | str) -> Tensor:
        """About `rows` random training rows (whole shards' heads), fp32, named for their use.

        The rows come from as many shards as needed, in a random order; all rows if there are fewer.
        """
        rng = generator(self._seed, self._cell_id, *name)
        parts: list[np.ndarray] = []
        for number in rng.permutation(len(self._shards.entries)).tolist():
            shard = self._shards.load(number)
            # a copy: a shard that stays mapped stays open
            parts.append(np.array(shard[: rows - sum(map(len, parts))], dtype=np.float32))
            if sum(map(len, parts)) >= rows:
                break
        return torch.from_numpy(np.concatenate(parts))
