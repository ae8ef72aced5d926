"""Files between machines, by content: what a node asks for, keeps, works on and sends back.

A node keeps inputs in a folder of its own (`SAE_REPRO_NODE_FOLDER`, safe to delete while nothing
runs):

    objects/<sha256>   a file's bytes, checked when they arrive and when a worker first uses them
    places/<key>/      the folder in which an order is carried out; it stays if its worker is lost,
                       so that the same order goes on from its checkpoint there

The machine with the study has a `Depot`, of which nodes ask for pieces of the files that they lack.
"""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from sae_repro.errors import StudyError
from sae_repro.files import replacing, sha256_file
from sae_repro.orders import Entry, Order, left_behind

PIECE = 16 * 2**20  # bytes of a file that travel at once
REPORT_SECONDS = 0.5  # between two reports of a job's progress
NODE_FOLDER = "SAE_REPRO_NODE_FOLDER"


class Depot:
    """The files of the study by content, the reports of jobs, and what has come back so far."""

    def __init__(self, study: Path, arriving: Path) -> None:
        """`study` and `arriving`, where files that come back lie by attempt, are absolute."""
        self._study, self._arriving = study, arriving
        self._paths: dict[str, str] = {}
        self._reports: dict[int, int] = {}
        self._lock = threading.Lock()

    def offer(self, entries: Iterable[Entry]) -> None:
        """Have `entries` at hand."""
        with self._lock:
            self._paths.update((entry.sha256, entry.path) for entry in entries)

    def piece(self, sha256: str, number: int) -> bytes:
        """Piece `number` of a file that was offered."""
        with (self._study / self._paths[sha256]).open("rb") as file:
            file.seek(number * PIECE)
            return file.read(PIECE)

    def take(self, attempt: str, file: int, number: int, piece: bytes) -> None:
        """Keep piece `number` of the file `file` that `attempt`, a name without slashes, sends."""
        path = self._arriving / attempt / str(int(file))
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            done = 0
            while done < len(piece):
                done += os.pwrite(descriptor, piece[done:], number * PIECE + done)
        finally:
            os.close(descriptor)

    def report(self, number: int, done: int) -> None:
        """Note that job `number` has done so many of its units."""
        with self._lock:
            self._reports[number] = done

    def reports(self) -> dict[int, int]:
        """The units that are done, by the number of the job; what was told before is left out."""
        with self._lock:
            told, self._reports = self._reports, {}
        return told


class Line(Protocol):
    """A node's connection with the depot."""

    def pieces(self, sha256: str, count: int) -> Iterator[bytes]:
        """The first `count` pieces of a file."""

    def send(self, attempt: str, file: int, pieces: Iterator[bytes]) -> None:
        """Hand over a file in pieces; all of them are there on return."""

    def report(self, number: int, done: int) -> None:
        """Tell a job's progress, without waiting."""


class Cache:
    """The files that a node has, by content."""

    _checked: dict[Path, tuple[int, int, int]] = {}  # noqa: RUF012 - of this process
    """The state in which an object was found to have its hash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "objects"
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, entry: Entry, line: Line) -> Path:
        """The object of `entry`, fetched unless it is there; StudyError where it arrives damaged.

        A damaged object is fetched again.
        """
        path = self.folder / entry.sha256
        if self._is_right(path, entry):
            return path
        with FileLock(self.folder / f"{entry.sha256}.lock"):
            if not self._is_right(path, entry):
                for _ in range(2):  # once more, should it arrive damaged
                    with replacing(path) as temporary, temporary.open("wb") as file:
                        file.writelines(line.pieces(entry.sha256, pieces_of(entry.size)))
                    if self._is_right(path, entry):
                        break
                else:
                    path.unlink(missing_ok=True)
                    raise StudyError(
                        f"{entry.path}: does not arrive on {os.uname().nodename} as it was sent; "
                        "it changed meanwhile, or the node's disk or memory is damaged"
                    )
        return path

    def keep(self, entry: Entry) -> None:
        """Have the file at `entry`'s path at hand, which the job in the working folder made."""
        path = self.folder / entry.sha256
        if not path.exists():
            with replacing(path) as temporary:
                shutil.copyfile(entry.path, temporary)

    def _is_right(self, path: Path, entry: Entry) -> bool:
        try:
            stat = path.stat()
        except FileNotFoundError:
            return False
        state = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if self._checked.get(path) != state:
            if stat.st_size != entry.size or sha256_file(path) != entry.sha256:
                return False
            self._checked[path] = state
        return True


def pieces_of(size: int) -> int:
    """Pieces of a file of `size` bytes."""
    return -(-size // PIECE)


@dataclass(frozen=True)
class Outcome:
    """What a node sends when a job is done."""

    line: str | None
    seconds: float
    files: tuple[Entry, ...]
    """Those that it sent, by number."""
    node: str


def node_folder() -> Path:
    """SAE_REPRO_NODE_FOLDER, or one for this user in the folder of temporary files."""
    setting = os.environ.get(NODE_FOLDER)
    return Path(setting or Path(tempfile.gettempdir(), f"sae-repro-node-{os.getuid()}")).absolute()


def carry_out(
    order: Order,
    attempt: str,
    line: Line,
    run: Callable[[Order, Callable[[int], None]], tuple[str | None, float]],
) -> Outcome:
    """Fetch the order's inputs, `run` its job in a folder with them, and send what it leaves.

    `run` gives the job's line and seconds. Two workers never carry out the same order at once.
    """
    folder = node_folder()
    cache, place = Cache(folder), folder / "places" / order.key
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f"{place.name}.lock")):
        _lay_out(order, cache, place, line)
        before = Path.cwd() if Path().exists() else folder
        os.chdir(place)
        try:
            text, seconds = run(order, _throttled(order.number, line))
            files = left_behind(order.outputs)
            for number, entry in enumerate(files):
                line.send(attempt, number, _read(Path(entry.path)))
                cache.keep(entry)
        finally:
            os.chdir(before)
        shutil.rmtree(place, ignore_errors=True)
        place.with_name(f"{place.name}.lock").unlink(missing_ok=True)
    return Outcome(text, seconds, tuple(files), os.uname().nodename)


def _lay_out(order: Order, cache: Cache, place: Path, line: Line) -> None:
    """Have the inputs in `place`; what an earlier try of the order left there is newer."""
    for entry in order.inputs:
        path = place / entry.path
        own = any(Path(entry.path).is_relative_to(output) for output in order.outputs)
        if own and path.exists():
            continue
        thing = cache.path(entry, line)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        try:
            if own:  # a job may write into it
                raise OSError
            path.hardlink_to(thing)
        except OSError:  # a file system without hard links
            shutil.copyfile(thing, path)


def _throttled(number: int, line: Line) -> Callable[[int], None]:
    last = -REPORT_SECONDS

    def report(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REPORT_SECONDS:
            last = now
            line.report(number, done)

    return report


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece
