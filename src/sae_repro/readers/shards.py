"""Activation shards on disk: written once in bounded memory, read back with their checksums.

artifacts/extract/manifest.json                     what is there, a SHA-256 per file
artifacts/extract/<hook>/<split>/00000.npy          [rows, D], row-aligned over the hooks
artifacts/extract/<hook>/mean.npy                   float64 [D], over the training rows
artifacts/extract/index/<split>/00000.npy           int32 [rows, 3]: document, position, token
artifacts/extract/seen.npy                          bool [validation rows]: trained on its prefix
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from sae_repro.errors import StudyError
from sae_repro.files import digest, read_object, remedy, sha256_file

FloatArray = npt.NDArray[np.floating[Any]]

DOCUMENT, POSITION, TOKEN = 0, 1, 2  # columns of the index
SEEN = "seen.npy"
GIVEN_ROWS = "given"
"""The manifest's `pooling` where activations were given, and rows are no tokens of a model."""


def row_key(document: npt.NDArray[Any], position: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """One number per token, in the order of (document, position)."""
    key: npt.NDArray[np.int64] = (document.astype(np.int64) << 32) | position.astype(np.int64)
    return key


class RowFile:
    """A growing `.npy` file of rows: appended to in place, its header completed at the end.

    numpy reserves room in a header for a first axis of any length, so that the header of no rows
    has the size of the final one. A file that waits can be `park`ed: a process may have only so
    many of them open. One that was left unfinished goes on after the first `rows`: those beyond
    are cut off; ValueError where it has fewer.
    """

    def __init__(
        self, path: Path, width: int, dtype: npt.DTypeLike, rows: int | None = None
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.width, self.dtype, self.rows = path, width, np.dtype(dtype), rows or 0
        self._file: BinaryIO = path.open("wb" if rows is None else "r+b")
        self._write_header((self.rows, self.width))
        self._begin = self._file.tell()
        if rows is not None:
            end = self._begin + rows * width * self.dtype.itemsize
            if path.stat().st_size < end:
                raise ValueError(f"{path}: fewer than {rows} rows")
            self._file.truncate(end)
            self._file.seek(end)

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Append `rows` [n, width]."""
        self._resume().write(np.ascontiguousarray(rows, dtype=self.dtype).data)
        self.rows += len(rows)

    def park(self) -> None:
        """Close the file until the next `append`."""
        self._file.close()

    def _resume(self) -> BinaryIO:
        if self._file.closed:
            self._file = self.path.open("r+b")
            self._file.seek(0, os.SEEK_END)
        return self._file

    def close(self, *, flat: bool = False, sync: bool = False) -> None:
        """Complete the header: an ordinary `.npy` of shape [rows, width], or `flat` [rows].

        With `sync`, it is on the disk by then.
        """
        self._resume()
        self._write_header((self.rows,) if flat else (self.rows, self.width))
        if self._file.tell() != self._begin:
            raise ValueError(f"{self.path}: no room for the header of {self.rows} rows")
        if sync:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()

    def _write_header(self, shape: tuple[int, ...]) -> None:
        self._file.seek(0)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


@dataclass(frozen=True)
class Shards:
    """The shards of one hook (or of the index) and split, in order; a damaged one is named."""

    folder: Path
    entries: tuple[dict[str, Any], ...]
    rolling: Path | None = None
    """Where rounds after the first are, one at a time, if `folder` keeps none of them."""

    @property
    def rounds(self) -> tuple[int, ...]:
        """Shards of each round of `extract.buffer`, in order; all of them where there is none."""
        return tuple(Counter(entry.get("round", 0) for entry in self.entries).values())

    def first_round(self) -> Self:
        """The shards of the first round."""
        return replace(self, entries=self.entries[: self.rounds[0]])

    @property
    def rows(self) -> int:
        """Rows of all shards together."""
        return sum(entry["rows"] for entry in self.entries)

    @property
    def checksum(self) -> str:
        """SHA-256 over the shards' own checksums."""
        return digest([entry["sha256"] for entry in self.entries])

    def load(self, number: int) -> npt.NDArray[Any]:
        """Shard `number`, memory-mapped once its checksum is verified."""
        entry = self.entries[number]
        path = self.folder / entry["file"]
        if entry.get("round") and not path.exists():
            path = _in_rolling(self.rolling, path, entry, len(self.rounds))
        _check(path, entry["sha256"])
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array

    def whole(self) -> npt.NDArray[Any]:
        """All rows in order, in memory; one shard mapped at a time."""
        first = self.load(0)
        rows = np.empty((self.rows, *first.shape[1:]), dtype=first.dtype)
        begin = 0
        for number, entry in enumerate(self.entries):
            rows[begin : begin + entry["rows"]] = self.load(number)
            begin += entry["rows"]
        return rows

    def batches(self, size: int) -> Iterator[npt.NDArray[Any]]:
        """All rows in order, in batches of at most `size` that don't cross a shard's end."""
        for number in range(len(self.entries)):
            shard = self.load(number)
            for start in range(0, len(shard), size):
                yield np.asarray(shard[start : start + size])


def _in_rolling(rolling: Path | None, path: Path, entry: dict[str, Any], rounds: int) -> Path:
    if rolling is not None:
        found: Path = rolling / entry["file"]
        if found.exists():
            return found
    raise StudyError(
        f"{path}: of round {entry['round'] + 1} of {rounds} of the training activations, which "
        "extract.keep = buffer keeps while the stage train reads it; here only the first round "
        "can be read (or set extract.keep to all)"
    )


def _check(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise StudyError(f"{path}: missing; {remedy(path)}")
    found = path.stat()
    if not _is_whole(path, sha256, found.st_ino, found.st_size, found.st_mtime_ns):
        raise StudyError(f"{path}: damaged (not the manifest's checksum); {remedy(path)}")


@lru_cache(maxsize=4096)
def _is_whole(path: Path, sha256: str, *state: int) -> bool:
    """Whether the file has the checksum: read once a process, while its `state` is the same."""
    return sha256_file(path) == sha256


class ActivationStore:
    """Reader of artifacts/extract; `rolling` is the folder of the round that is trained on now."""

    def __init__(self, folder: Path, rolling: Path | None = None) -> None:
        self.folder, self.rolling = folder, rolling
        self.manifest: dict[str, Any] = read_object(folder / "manifest.json")

    def _hook(self, hook: str) -> dict[str, Any]:
        hooks: dict[str, dict[str, Any]] = self.manifest["hooks"]
        if hook not in hooks:
            raise StudyError(f"{hook}: not extracted; artifacts/extract has {', '.join(hooks)}")
        return hooks[hook]

    def d_in(self, hook: str) -> int:
        """D, the width of the hook's activations."""
        return int(self._hook(hook)["d_in"])

    def rms(self, hook: str) -> float:
        """√(E‖x‖²) over the training rows."""
        return float(self._hook(hook)["rms"])

    def median_norm(self, hook: str) -> float:
        """Median of ‖x‖ over the training rows, to 0.05 %."""
        return float(self._hook(hook)["median_norm"])

    def norm_limit(self, hook: str) -> float | None:
        """The norm beyond which a token was left out at the hook, if there is a limit."""
        rule = self.manifest.get("left_out") or {}
        median = rule.get("medians", {}).get(hook)
        return None if median is None else float(rule["norm_limit"]) * float(median)

    def mean(self, hook: str) -> FloatArray:
        """E x over the training rows, float64 [D]."""
        path = self.folder / hook / "mean.npy"
        _check(path, self._hook(hook)["mean_sha256"])
        mean: FloatArray = np.load(path, allow_pickle=False)
        return mean

    def seen(self) -> npt.NDArray[np.bool_] | None:
        """Of each validation row, whether a training row has its prefix; None for other rows."""
        if "seen" not in self.manifest:
            return None
        _check(self.folder / SEEN, self.manifest["seen"])
        seen: npt.NDArray[np.bool_] = np.load(self.folder / SEEN, allow_pickle=False)
        return seen

    def activations(self, hook: str, split: str) -> Shards:
        """The hook's activations [rows, D] in `split`."""
        return Shards(self.folder, tuple(self._hook(hook)["shards"][split]), self.rolling)

    def index(self, split: str) -> Shards:
        """(document, position, token) of every row of `split`."""
        return Shards(self.folder, tuple(self.manifest["index"][split]), self.rolling)
