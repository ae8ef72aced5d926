"""Finished cells by content: a folder per key, a hash of everything the folder follows from.

A grid's cells are made side by side into it, and each is there once it is finished, whatever
happens to the others. It also holds earlier results of a cell, and the trials of `tune`. Local to a
checkout, safe to delete. `SAE_REPRO_NO_STORE=1` bypasses it.
"""

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from filelock import FileLock

from sae_repro.errors import StudyError
from sae_repro.files import (
    digest,
    read_json,
    replacing_folder,
    sha256_file,
    write_json,
)


def bypassed() -> bool:
    """Whether SAE_REPRO_NO_STORE turns the store off."""
    return os.environ.get("SAE_REPRO_NO_STORE", "") not in ("", "0")


class CellStore:
    """Folders by key under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str) -> Path | None:
        """The finished folder of `key`, if there is one."""
        path = self.folder / key
        return path if path.is_dir() else None

    @contextmanager
    def making(self, key: str) -> Iterator[Path | None]:
        """A folder to fill for `key`; None when another process has finished it meanwhile.

        One writer per key, also where a killed grid left workers behind.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f"{key}.lock"):
            if self.find(key):
                yield None
                return
            with replacing_folder(self.folder / key) as temporary:
                yield temporary

    def take(self, key: str, target: Path) -> None:
        """Copy the finished folder of `key` to `target`, atomically."""
        with replacing_folder(target) as temporary:
            shutil.copytree(self.folder / key, temporary, dirs_exist_ok=True)


class Job(Protocol):
    """A job that makes the folder of one SAE."""

    @property
    def key(self) -> str:
        """Hash of everything that the folder follows from."""

    def make(self, folder: Path) -> None:
        """Write it into `folder`, which is there."""


J = TypeVar("J", bound=Job)


def deliver(
    out: Path,
    cells: Mapping[str, Mapping[str, J]],
    store: CellStore,
    *,
    summary: str,
    make_all: Callable[[Sequence[J]], None],
) -> None:
    """Bring `out` up to date: a folder per cell, and for each of its jobs one at its place therein.

    `cells` has the jobs of each cell by place, from params.yaml. Finished folders stay; `make_all`
    has to put the jobs that are handed to it into the store. The JSON file `summary` of each folder
    is given the cell's name, the job's key, and a hash of the other files, by which a damaged
    folder is told from a finished one.
    """
    prune(cells, out)
    changed = {
        name: jobs
        for name, jobs in cells.items()
        # a seed that params.yaml no longer names
        if any(path.name not in jobs for path in (out / name).glob("seed-*"))
        or not all(_finished(out / name / place, job.key, summary) for place, job in jobs.items())
    }
    if not bypassed():
        missing = {
            job.key: job
            for name, jobs in changed.items()
            for place, job in jobs.items()
            if store.find(job.key) is None and not _finished(out / name / place, job.key, summary)
        }
        if missing:
            make_all(list(missing.values()))
    for name, jobs in changed.items():
        with replacing_folder(out / name) as folder:
            for place, job in jobs.items():
                if bypassed():
                    (folder / place).mkdir(exist_ok=True)
                    job.make(folder / place)
                elif store.find(job.key):
                    store.take(job.key, folder / place)
                else:
                    shutil.copytree(out / name / place, folder / place, dirs_exist_ok=True)
                _label(folder / place, summary, name, job.key)


def _label(folder: Path, summary: str, name: str, key: str) -> None:
    """Add the cell's name to the summary: the store has folders by content, not by name."""
    labelled = {"cell": name, "key": key, **read_json(folder / summary)}
    contents = _contents(folder, summary)
    write_json(folder / summary, {**labelled, "cell": name, "contents": contents})


def _finished(folder: Path, key: str, summary: str) -> bool:
    try:
        label = read_json(folder / summary)
    except StudyError:
        return False
    return bool(label.get("key") == key and label.get("contents") == _contents(folder, summary))


def _contents(folder: Path, summary: str) -> str:
    files = [path for path in folder.rglob("*") if path.is_file() and path != folder / summary]
    return digest({path.relative_to(folder).as_posix(): sha256_file(path) for path in files})


def prune(names: Collection[str], out: Path) -> list[Path]:
    """Delete from `out` the folders of cells that params.yaml no longer names, and return them."""
    folders = sorted(out.iterdir()) if out.is_dir() else []
    orphans = [folder for folder in folders if folder.is_dir() and folder.name not in names]
    for folder in orphans:
        shutil.rmtree(folder)
    return orphans
