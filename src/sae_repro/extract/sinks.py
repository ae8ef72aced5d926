"""Sinks for rows of activations: shards in the order of arrival, or shuffled while written.

However many shards and hooks there are, one file is open at a time. A sink made from the state of
another, whose process was killed, has the rows of then and no others.
"""

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sae_repro.extract.state import State
from sae_repro.files import sha256_file
from sae_repro.readers.shards import RowFile

Rows = Mapping[str, npt.NDArray[Any]]
Entries = dict[str, list[dict[str, Any]]]
Widths = int | Mapping[str, int]
"""D of all hooks, or of each by its name."""

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

    def state(self) -> State:
        """What a sink needs to go on from here; all rows so far are in their files."""


class _Shard:
    """One shard of every hook and of the index; of `rows` rows, where it was begun before."""

    def __init__(
        self,
        folder: Path,
        split: str,
        hooks: Sequence[str],
        d_in: Widths,
        dtype: str,
        number: int,
        rows: int | None = None,
        *,
        suffix: str = ".npy",
    ) -> None:
        name = f"{split}/{number:05d}{suffix}"
        self._folder, self.rows = folder, rows or 0
        shapes: dict[str, tuple[int, npt.DTypeLike]] = {
            hook: (d_in if isinstance(d_in, int) else d_in[hook], dtype) for hook in hooks
        }
        self._paths: dict[str, Path] = {}
        self._files: dict[str, RowFile] = {}
        self._sha256: dict[str, str] = {}
        for part, (width, kind) in {**shapes, "index": (3, np.int32)}.items():
            path = self._paths[part] = folder / part / name
            if rows is None or path.exists():  # or it is in order by now
                self._files[part] = RowFile(path, width, kind, rows)
                self._files[part].park()

    def append(self, name: str, values: npt.NDArray[Any]) -> None:
        """Append rows of a hook, or of the index."""
        self._files[name].append(values)
        self._files[name].park()
        self.rows = self._files[name].rows

    def close(self, *, sync: bool) -> None:
        for file in self._files.values():
            file.close(sync=sync)

    def permute(self, order: npt.NDArray[np.int64]) -> None:
        """Put the rows into `order`, one file in memory at a time.

        A killed process may have put some of them there: no file is ever half of each.
        """
        for name, file in self._files.items():
            unfinished = file.path.with_suffix(".tmp")
            # mapped: rows are copied once, from where the system has them
            rows = np.load(file.path, mmap_mode="r" if self.rows else None, allow_pickle=False)
            self._sha256[name] = _save(unfinished, np.take(rows, order, axis=0))
            unfinished.replace(_ordered(file.path))
            file.path.unlink()

    def entries(self) -> dict[str, dict[str, Any]]:
        paths = {name: _ordered(path) for name, path in self._paths.items()}
        return {
            name: {
                "file": path.relative_to(self._folder).as_posix(),
                "rows": self.rows,
                "sha256": self._sha256.get(name) or sha256_file(path),
            }
            for name, path in paths.items()
        }


def _save(path: Path, rows: npt.NDArray[Any]) -> str:
    """Write `rows` as numpy does, to the disk; the file's SHA-256."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(rows))
    sha256 = hashlib.sha256()
    with path.open("wb") as file:
        for part in (header.getvalue(), rows.reshape(-1).view(np.uint8).data):
            file.write(part)
            sha256.update(part)
        file.flush()
        os.fsync(file.fileno())  # before the only other copy is deleted
    return sha256.hexdigest()


def _ordered(path: Path) -> Path:
    """Where the rows of a shard's file are in the end."""
    return path.with_suffix(".npy")


def _listing(shards: Sequence[_Shard]) -> Entries:
    entries = [shard.entries() for shard in shards]
    return {name: [entry[name] for entry in entries] for name in entries[0]} if entries else {}


class OrderedSink:
    """Shards of exactly `shard_rows` rows (the last one shorter), in the order of arrival."""

    def __init__(
        self,
        folder: Path,
        split: str,
        hooks: Sequence[str],
        d_in: Widths,
        dtype: str,
        shard_rows: int,
        state: State | None = None,
    ) -> None:
        self._new = partial(_Shard, folder, split, tuple(hooks), d_in, dtype)
        self._shard_rows = shard_rows
        rows_n = [None] if state is None else state["rows"]
        self._shards: list[_Shard] = [self._new(n, rows) for n, rows in enumerate(rows_n)]

    def append(self, rows: Rows, index: npt.NDArray[np.int32]) -> None:
        start = 0
        while start < len(index):
            if self._shards[-1].rows == self._shard_rows:
                self._shards[-1].close(sync=True)
                self._shards.append(self._new(len(self._shards)))
            end = min(len(index), start + self._shard_rows - self._shards[-1].rows)
            for name, values in {**rows, "index": index}.items():
                self._shards[-1].append(name, values[start:end])
            start = end

    def close(self) -> Entries:
        self._shards[-1].close(sync=True)
        return _listing(self._shards)

    def state(self) -> State:
        return {"rows": [shard.rows for shard in self._shards]}


class ShuffledSink:
    """A uniformly random order in bounded memory, in two passes over the disk.

    Every row goes to a random shard; each shard is then permuted by itself. Independent uniform
    shards followed by uniform permutations within them are a uniform permutation of all rows.
    Shards are numbered from `first` on.
    """

    def __init__(
        self,
        folder: Path,
        hooks: Sequence[str],
        d_in: Widths,
        dtype: str,
        *,
        shards: int,
        rng: np.random.Generator,
        first: int = 0,
        state: State | None = None,
    ) -> None:
        new = partial(_Shard, folder, "train", tuple(hooks), d_in, dtype, suffix=UNORDERED)
        rows_n = [None] * shards if state is None else state["rows"]
        self._shards = [new(number, rows) for number, rows in enumerate(rows_n, first)]
        self._rng = rng
        if state is not None:
            rng.bit_generator.state = state["rng"]
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

    def close(self) -> Entries:
        self._write()
        for shard in self._shards:
            shard.close(sync=False)
            shard.permute(self._rng.permutation(shard.rows))
        return _listing([shard for shard in self._shards if shard.rows])

    def state(self) -> State:
        self._write()
        rows_n = [shard.rows for shard in self._shards]
        return {"rows": rows_n, "rng": self._rng.bit_generator.state}
