"""Orders: a job with the files that it reads and writes, for a machine that shares none of them.

A job that travels says what it `reads` and `writes`, as paths in the study's folder. Its order
names each file by the SHA-256 of its bytes; what comes back is held against the hashes that the
other machine sends along before it takes its place in the study.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

from filelock import FileLock

from sae_repro.contents import CONTENTS, Changed, examine
from sae_repro.errors import StudyError
from sae_repro.files import digest, replacing, replacing_folder, sha256_file


@runtime_checkable
class Travelling(Protocol):
    """A job that can run on a machine without the study's folder."""

    def reads(self) -> list[Path]:
        """Files and folders of the study; those that are not there are left out."""

    def writes(self) -> list[Path]:
        """Files and folders that come back; a file that is gone then is deleted here, too.

        What is there already goes along, as a checkpoint or a finished cell.
        """


@dataclass(frozen=True)
class Entry:
    """A file by its path in the study's folder, and its content."""

    path: str
    sha256: str
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Order:
    """A job and its files."""

    job: Any
    number: int
    inputs: tuple[Entry, ...]
    outputs: tuple[str, ...]
    """Paths in the study's folder."""

    @property
    def key(self) -> str:
        """Names the folder in which a machine works on it: the same when it comes again."""
        return digest([self.outputs, [[entry.path, entry.sha256] for entry in self.inputs]])


class ArrivalError(Exception):
    """A file that came back is not what was sent."""


class Hashes:
    """SHA-256 of files, computed once for each state of a file."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int, int], str] = {}

    def entry(self, path: Path) -> Entry:
        """The file at `path`, relative to the working folder."""
        stat = path.stat()
        state = (path.as_posix(), stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if state not in self._known:
            self._known[state] = sha256_file(path)
        return Entry(path.as_posix(), self._known[state], stat.st_size)


def can_travel(job: object) -> bool:
    """Whether `job` says what it reads and writes, and all of it lies in the study's folder."""
    if not isinstance(job, Travelling):
        return False
    return all(_lies_within(path) for path in (*job.reads(), *job.writes()))


def _lies_within(path: Path) -> bool:
    return not path.is_absolute() and ".." not in path.parts


def order_of(job: Travelling, number: int, hashes: Hashes) -> Order:
    """The order of `job`, whose files lie in the working folder as they are now."""
    paths = (*job.reads(), *job.writes())
    files = dict.fromkeys(file for path in paths for file in _files(path))
    return Order(
        job=job,
        number=number,
        inputs=tuple(hashes.entry(path) for path in files),
        outputs=tuple(path.as_posix() for path in job.writes()),
    )


class Queue:
    """Jobs in the order given, each held back until what it needs of the others is there.

    A job waits for those that write what it reads, and, like trials of the same cell, for those at
    work that write what it writes.
    """

    def __init__(self, jobs: Sequence[Travelling]) -> None:
        self._reads = [set(job.reads()) for job in jobs]
        self._writes = [set(job.writes()) for job in jobs]
        self._waiting = list(range(len(jobs)))
        self._at_work: set[int] = set()

    def following(self) -> int | None:
        """The number of a job that can begin now, which is at work from now on."""
        for number in self._waiting:
            others = [n for n in (*self._waiting, *self._at_work) if n != number]
            needs = any(self._reads[number] & self._writes[other] for other in others)
            if not needs and not any(
                self._writes[number] & self._writes[other] for other in self._at_work
            ):
                self._waiting.remove(number)
                self._at_work.add(number)
                return number
        return None

    def again(self, number: int) -> None:
        """Have a job that was lost begin once more, before the others."""
        self._at_work.remove(number)
        self._waiting.insert(0, number)

    def done(self, number: int) -> None:
        """Note that a job has ended, and all it wrote is there."""
        self._at_work.remove(number)

    def __bool__(self) -> bool:
        return bool(self._waiting or self._at_work)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            if not name.endswith((".lock", ".tmp")):
                yield Path(folder, name)


def left_behind(outputs: Sequence[str]) -> list[Entry]:
    """The files that a job left at `outputs` in the working folder."""
    hashes = Hashes()
    return [hashes.entry(file) for output in outputs for file in _files(Path(output))]


def put_in_place(order: Order, files: Sequence[Entry], arrived: Path) -> None:
    """Move the files of a finished job from `arrived`, where they lie by number, into the study.

    ArrivalError where one is not what was sent, before any of them has taken its place; StudyError
    where a path is none that the order names. A sealed folder that is whole here already stays.
    """
    by_output: dict[str, dict[str, Path]] = {output: {} for output in order.outputs}
    for number, entry in enumerate(files):
        output = next((o for o in order.outputs if _is_of(entry.path, o)), None)
        if output is None:
            raise StudyError(f"{entry.path}: came back from another machine, and is not awaited")
        path = arrived / str(number)
        if not path.is_file() or sha256_file(path) != entry.sha256:
            raise ArrivalError(f"{entry.path}: not the bytes that were sent")
        by_output[output][entry.path] = path
    for output, paths in by_output.items():
        target = Path(output)
        if not paths:
            if target.is_file():
                target.unlink()
        elif output in paths:
            with replacing(target) as temporary:
                shutil.move(paths[output], temporary)
        else:
            _put_folder(target, {p.removeprefix(f"{output}/"): file for p, file in paths.items()})


def _is_of(path: str, output: str) -> bool:
    pure = PurePosixPath(path)
    return ".." not in pure.parts and pure.is_relative_to(output)


def _put_folder(target: Path, files: dict[str, Path]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if _is_whole(target):
            return
        with replacing_folder(target) as folder:
            for name, file in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(file, folder / name)
            if CONTENTS in files:
                try:
                    examine(folder)
                except Changed as fault:
                    raise ArrivalError(f"{target}: {fault}") from None


def _is_whole(folder: Path) -> bool:
    try:
        examine(folder)
    except Changed:
        return False
    return True
