"""Sinks for rows of activations: shards in the order of arrival, or shuffled while written.

However many shards and hooks there are, one file is open at a time. A sink can be pickled while its
process may be killed: loaded again, it has the rows of then and no others.
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sae_repro.files import sha256_file
from sae_repro.readers.shards import RowFile

Rows = Mapping[str, npt.NDArray[Any]]
Entries = dict[str, list[dict[str, Any]]]

UNORDERED = ".unordered"
"""Suffix of files whose rows are not yet shuffled."""
WAITING = 16 * 2**20
"""Bytes of rows that wait for their shards, so that a shard's file is opened for many at once."""


class Sink(Protocol):
    """Takes row-aligned batches of every hook and of the index; `close` lists the shards."""

    def append(self, rows: Rows, index: npt.NDArray[np.int32]) -> None:
        """Take a batch: `rows[hook]` [n, D] and `index` [n, 3]."""

    def close(self) -> Entries:
        """Finish; per hook, and for "index", the shards: file, rows, sha256."""


class _Shard:
    """One shard of every hook and of the index."""

    def __init__(
        self,
        folder: Path,
        split: str,
        hooks: Sequence[str],
        d_in: int,
        dtype: str,
        number: int,
        suffix: str = ".npy",
    ) -> None:
        name = f"{split}/{number:05d}{suffix}"
        self._folder = folder
        shapes: dict[str, tuple[int, npt.DTypeLike]] = dict.fromkeys(hooks, (d_in, dtype))
        self.files: dict[str, RowFile] = {}
        for part, (width, kind) in {**shapes, "index": (3, np.int32)}.items():
            self.files[part] = RowFile(folder / part / name, width, kind)
            self.files[part].park()

    def append(self, name: str, values: npt.NDArray[Any]) -> None:
        """Append rows of a hook, or of the index."""
        self.files[name].append(values)
        self.files[name].park()

    def close(self, *, sync: bool) -> None:
        for file in self.files.values():
            if file.path.is_file():
                file.close(sync=sync)

    def permute(self, order: npt.NDArray[np.int64]) -> None:
        """Put the rows into `order`, one file in memory at a time.

        A killed process may have put some of them there: no file is ever half of each.
        """
        for file in self.files.values():
            if file.path.is_file():
                unfinished = file.path.with_suffix(".tmp")
                with unfinished.open("wb") as shuffled:
                    np.save(shuffled, np.load(file.path, allow_pickle=False)[order])
                    shuffled.flush()
                    os.fsync(shuffled.fileno())  # before the only other copy is deleted
                unfinished.replace(_ordered(file.path))
                file.path.unlink()

    def entries(self) -> dict[str, dict[str, Any]]:
        paths = {name: _ordered(file.path) for name, file in self.files.items()}
        return {
            name: {
                "file": path.relative_to(self._folder).as_posix(),
                "rows": self.files[name].rows,
                "sha256": sha256_file(path),
            }
            for name, path in paths.items()
        }


def _ordered(path: Path) -> Path:
    """Where the rows of a shard's file are in the end."""
    return path.with_suffix(".npy")


def _listing(shards: Sequence[_Shard]) -> Entries:
    entries = [shard.entries() for shard in shards]
    return {name: [entry[name] for entry in entries] for name in entries[0]} if entries else {}


class OrderedSink:
    """Shards of exactly `shard_rows` rows (the last one shorter), in the order of arrival."""

    def __init__(
        self, folder: Path, split: str, hooks: Sequence[str], d_in: int, dtype: str, shard_rows: int
    ) -> None:
        self._new = partial(_Shard, folder, split, tuple(hooks), d_in, dtype)
        self._shard_rows = shard_rows
        self._shards: list[_Shard] = [self._new(0)]
        self._room = shard_rows

    def append(self, rows: Rows, index: npt.NDArray[np.int32]) -> None:
        start = 0
        while start < len(index):
            if not self._room:
                self._shards[-1].close(sync=True)
                self._shards.append(self._new(len(self._shards)))
                self._room = self._shard_rows
            end = min(len(index), start + self._room)
            for name, values in {**rows, "index": index}.items():
                self._shards[-1].append(name, values[start:end])
            self._room -= end - start
            start = end

    def close(self) -> Entries:
        self._shards[-1].close(sync=True)
        return _listing(self._shards)


class ShuffledSink:
    """A uniformly random order in bounded memory, in two passes over the disk.

    Every row goes to a random shard; each shard is then permuted by itself. Independent uniform
    shards followed by uniform permutations within them are a uniform permutation of all rows.
    """

    def __init__(
        self,
        folder: Path,
        hooks: Sequence[str],
        d_in: int,
        dtype: str,
        *,
        shards: int,
        rng: np.random.Generator,
    ) -> None:
        new = partial(_Shard, folder, "train", tuple(hooks), d_in, dtype, suffix=UNORDERED)
        self._shards = [new(number) for number in range(shards)]
        self._rng = rng
        self._waiting: list[tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.int64]]] = []
        """(rows by hook and of the index, each one's shard)."""
        self._bytes = 0

    def append(self, rows: Rows, index: npt.NDArray[np.int32]) -> None:
        shard_n = self._rng.integers(len(self._shards), size=len(index))
        self._waiting.append(({**rows, "index": index}, shard_n))
        self._bytes += sum(values.nbytes for values in rows.values())
        if self._bytes >= WAITING:
            self._write()

    def _write(self) -> None:
        """Write what waits; a shard's rows in the order of their arrival."""
        if not self._waiting:
            return
        shard_n = np.concatenate([shards for _, shards in self._waiting])
        # of each row, its place behind the rows of the shards before its own
        place_n = np.empty(len(shard_n), dtype=np.int64)
        place_n[np.argsort(shard_n, kind="stable")] = np.arange(len(shard_n))
        ends = np.cumsum(np.bincount(shard_n, minlength=len(self._shards)))
        for name, first in self._waiting[0][0].items():
            values = np.empty((len(shard_n), first.shape[1]), dtype=first.dtype)
            taken = 0
            for rows, shards in self._waiting:
                values[place_n[taken : taken + len(shards)]] = rows[name]
                taken += len(shards)
            for number, shard in enumerate(self._shards):
                part = values[ends[number - 1] if number else 0 : ends[number]]
                if len(part):
                    shard.append(name, part)
        self._waiting, self._bytes = [], 0

    def __getstate__(self) -> dict[str, Any]:
        self._write()
        return vars(self)

    def close(self) -> Entries:
        self._write()
        for shard in self._shards:
            shard.close(sync=False)
            shard.permute(self._rng.permutation(shard.files["index"].rows))
        return _listing([shard for shard in self._shards if shard.files["index"].rows])
