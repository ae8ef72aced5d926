"""Training batches: a pure function of the step's number and the cell's seeds."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate, islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.numerics.random import generator
from sae_repro.readers.shards import Shards
from sae_repro.training.pairs import Pairs


class Batches:
    """`steps` batches of exactly `batch_size` rows, of as many epochs as they take.

    An epoch visits every row once, its ragged end apart; the last one may stop anywhere.

    Shards come in a random order, rows in a random order within their shard; both are drawn anew
    each epoch from generators named after (seed, cell, epoch). Shards were shuffled when written.
    Rounds of `extract.buffer` come in their order, each a whole number of batches, and are in a
    random order within: a batch needs no shard of another round.
    """

    def __init__(
        self, shards: Shards | Pairs, batch_size: int, steps: int, *, seed: int, cell_id: str
    ) -> None:
        self._shards, self._size = shards, batch_size
        self._seed, self._cell_id = seed, cell_id
        self._per_epoch = shards.rows // batch_size
        self.steps = steps if self._per_epoch else 0
        self._only: npt.NDArray[np.floating] | None = None
        numbers, sizes = iter(range(len(shards.entries))), [e["rows"] for e in shards.entries]
        self._rounds = [list(islice(numbers, n)) for n in shards.rounds]
        """The shards of each round."""
        rows = accumulate(sum(sizes[number] for number in numbers) for numbers in self._rounds)
        self._ends = [end // batch_size for end in rows]
        """Steps of an epoch up to the end of each round."""
        self.round_ends = self._round_ends()
        """Of each round that is read, epoch after epoch, the step after its last one."""
        self.pauses = frozenset(self.round_ends if len(self._rounds) > 1 else ())
        """Those before which training may pause, for another round to take its place on disk."""

    def starting_at(self, step: int) -> Iterator[Tensor]:
        """The batches [B, D] fp32 of steps `step`, `step` + 1, …"""
        while step < self.steps:
            epoch, within = divmod(step, self._per_epoch)
            for batch in islice(self._epoch(epoch, within), self.steps - step):
                yield batch
                step += 1

    def _epoch(self, epoch: int, first: int) -> Iterator[Tensor]:
        skip, size = first * self._size, self._size
        left = np.empty((0, 0), np.float32)  # rows too few for a batch, until the next shard
        for number in self._order(epoch):
            rows = self._shards.entries[number]["rows"]
            if skip >= rows:
                skip -= rows
                continue
            within = generator(self._seed, self._cell_id, "rows", epoch, number).permutation(rows)
            shard, within, skip = self._loaded(number), within[skip:], 0
            if len(left):
                fill = size - len(left)
                left, within = np.concatenate([left, _rows(shard, within[:fill])]), within[fill:]
                if len(left) < size:
                    continue
                yield torch.from_numpy(left)
            # a batch at a time: a whole shard's would have left the cache before they are used
            whole = len(within) // size * size
            for at in range(0, whole, size):
                yield torch.from_numpy(_rows(shard, within[at : at + size]))
            left = _rows(shard, within[whole:])

    def _order(self, epoch: int) -> list[int]:
        """The shards in the order in which the epoch reads them."""
        order: list[int] = []
        if len(self._rounds) == 1:
            rng = generator(self._seed, self._cell_id, "order", epoch)
            order = rng.permutation(len(self._shards.entries)).tolist()
            return order
        for number, shards in enumerate(self._rounds):
            rng = generator(self._seed, self._cell_id, "order", epoch, number)
            order += rng.permutation(np.array(shards)).tolist()
        return order

    def _loaded(self, number: int) -> npt.NDArray[np.floating]:
        """Shard `number`; one that is the only one is checked and mapped once for all epochs."""
        if self._only is not None:
            return self._only
        shard = np.asarray(self._shards.load(number))
        if len(self._shards.entries) == 1:
            self._only = shard
        return shard

    def _round_ends(self) -> list[int]:
        ends: list[int] = []
        for epoch in range(-(-self.steps // max(1, self._per_epoch))):
            for end in self._ends:
                if not ends or ends[-1] < self.steps:
                    ends.append(min(epoch * self._per_epoch + end, self.steps))
        return ends

    def sample(self, rows: int, *name: int | str, at: int = 0) -> Tensor:
        """About `rows` random training rows (whole shards' heads), fp32, named for their use.

        The rows come from as many shards as needed, in a random order; all rows if there are fewer.
        Of several rounds from the one that step `at` reads.
        """
        of_round = self._rounds[bisect_right(self._ends[:-1], at % max(1, self._per_epoch))]
        rng = generator(self._seed, self._cell_id, *name)
        parts: list[np.ndarray] = []
        for number in rng.permutation(np.array(of_round)).tolist():
            shard = self._loaded(number)
            # a copy: a shard that stays mapped stays open
            parts.append(np.array(shard[: rows - sum(map(len, parts))], dtype=np.float32))
            if sum(map(len, parts)) >= rows:
                break
        return torch.from_numpy(np.concatenate(parts))


def _rows(shard: npt.NDArray[np.floating], which: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Copies of these rows of a shard, fp32."""
    return shard.take(which, axis=0).astype(np.float32, copy=False)
