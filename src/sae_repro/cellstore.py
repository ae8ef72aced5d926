"""Finished cells by content: a folder per key, a hash of everything the folder follows from.

DVC runs one stage after another; the first of a `foreach` finds the whole grid undone and does it
side by side, and each later stage takes its own folder out of here. It also has what a cell came to
before, and the trials of `tune`. Local to a checkout, safe to delete. `SAE_REPRO_NO_STORE=1`
bypasses it.
"""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from sae_repro.files import digest, replacing_folder, sha256_file, sha256_folder


def code_digest(root: Path, *parts: str) -> str:
    """SHA-256 over the named modules of the package, and over the lock of its libraries.

    A folder counts with its own modules, without its subpackages.
    """
    package = root / "src" / "sae_repro"
    found = {
        part: sha256_folder(package / part, pattern="*.py")
        if (package / part).is_dir()
        else sha256_file(package / part)
        for part in parts
    }
    return digest({**found, "lock": sha256_file(root / "requirements.lock")})


def bypassed() -> bool:
    """Whether SAE_REPRO_NO_STORE asks to do without the store."""
    return os.environ.get("SAE_REPRO_NO_STORE", "") not in ("", "0")


def members(folder: Path) -> list[str]:
    """Where a cell's SAEs lie below its `folder`: `.`, or `seed-<n>` in the order of n."""
    seeds = [int(path.name.removeprefix("seed-")) for path in folder.glob("seed-*")]
    return [f"seed-{seed}" for seed in sorted(seeds)] or ["."]


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


def prune(names: Collection[str], artifacts: Path) -> list[Path]:
    """Delete the folders of cells that params.yaml no longer names; what was deleted.

    DVC forgets a stage that has left dvc.yaml but leaves its out behind, and a stage that depends
    on the whole folder would go on hashing it.
    """
    orphans = [
        folder
        for stage in ("train", "evaluate")
        if (artifacts / stage).is_dir()
        for folder in sorted((artifacts / stage).iterdir())
        if folder.is_dir() and folder.name not in names
    ]
    for folder in orphans:
        shutil.rmtree(folder)
    return orphans
