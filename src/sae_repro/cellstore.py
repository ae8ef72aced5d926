"""Finished cells by content: a folder per key, a hash of everything the folder follows from.

An entry has a hash of each of its files, which is checked whenever it is looked up: a damaged one
is made again, never used. A grid's cells are made side by side into it, and each is there once it
is finished, whatever happens to the others. It also holds earlier results of a cell, and the trials
of `tune`. Local to a checkout, safe to delete. `SAE_REPRO_NO_STORE=1` bypasses it.
"""

import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from filelock import FileLock

from sae_repro.contents import Changed, examine, listed, seal, sealed_folder
from sae_repro.errors import StudyError
from sae_repro.files import read_object, replacing_folder, write_json


def bypassed() -> bool:
    """Whether SAE_REPRO_NO_STORE turns the store off."""
    return os.environ.get("SAE_REPRO_NO_STORE", "") not in ("", "0")


class CellStore:
    """Folders by key under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str) -> Path | None:
        """The finished folder of `key`, each of its files as it was made; None without one."""
        path = self.folder / key
        try:
            examine(path)
        except Changed:
            return None
        return path

    @contextmanager
    def making(self, key: str) -> Iterator[Path | None]:
        """A folder to fill for `key`; None when another process has finished it meanwhile.

        One writer per key, also where a killed grid left workers behind. A damaged folder is made
        again, with a line that says so.
        """
        path = self.folder / key
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f"{key}.lock"):
            if path.is_dir():
                try:
                    examine(path)
                except Changed as fault:
                    print(f"{fault}; made again", file=sys.stderr)
                else:
                    yield None
                    return
            with sealed_folder(path) as temporary:
                yield temporary


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
    is given the cell's name and the job's key; contents.json tells a damaged folder from a finished
    one. StudyError where a folder does not stay as it was made.
    """
    prune(cells, out)
    changed = {
        name: jobs
        for name, jobs in cells.items()
        # a seed that params.yaml no longer names
        if any(path.name not in jobs for path in (out / name).glob("seed-*"))
        or not all(finished(out / name / place, job.key, summary) for place, job in jobs.items())
    }
    if not bypassed():
        missing = {
            job.key: job
            for name, jobs in changed.items()
            for place, job in jobs.items()
            if store.find(job.key) is None and not finished(out / name / place, job.key, summary)
        }
        if missing:
            make_all(list(missing.values()))
    for name, jobs in changed.items():
        with replacing_folder(out / name) as folder:
            for place, job in jobs.items():
                if bypassed():
                    (folder / place).mkdir(exist_ok=True)
                    job.make(folder / place)
                    seal(folder / place)
                else:
                    copied(job.key, store, out / name / place, folder / place)
                _label(folder / place, summary, name, job.key)
    seal(out)


def copied(key: str, store: CellStore, earlier: Path, target: Path) -> None:
    """Copy the store's folder of `key` to `target`, or `earlier`, where the store was emptied."""
    try:
        shutil.copytree(store.find(key) or earlier, target, dirs_exist_ok=True)
        examine(target)  # the copy: what is damaged on the way there is noticed, too
    except (Changed, FileNotFoundError) as fault:
        raise StudyError(
            f"{store.folder / key}: damaged since it was made by this run ({fault}): check this "
            "machine's disk and memory, then run again"
        ) from None


def _label(folder: Path, summary: str, name: str, key: str) -> None:
    """Add the cell's name to the summary: the store has folders by content, not by name."""
    labelled = {"cell": name, "key": key, **read_object(folder / summary)}
    write_json(folder / summary, {**labelled, "cell": name})
    seal(folder, {path: sha for path, sha in listed(folder).items() if path != summary})


def finished(folder: Path, key: str, summary: str) -> bool:
    """Whether `folder` is as it was made, and of `key` by its JSON file `summary`."""
    try:
        examine(folder)
        return bool(read_object(folder / summary).get("key") == key)
    except (Changed, StudyError):
        return False


def prune(names: Collection[str], out: Path) -> list[Path]:
    """Delete from `out` the folders of cells that params.yaml no longer names, and return them."""
    folders = sorted(out.iterdir()) if out.is_dir() else []
    orphans = [folder for folder in folders if folder.is_dir() and folder.name not in names]
    for folder in orphans:
        shutil.rmtree(folder)
    return orphans
