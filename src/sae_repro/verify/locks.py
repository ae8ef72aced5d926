"""The outputs and inputs that a dvc.lock records."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sae_repro.files import digest
from sae_repro.installation import CHECKED_OUT, CODE, listed
from sae_repro.provenance import lock_hashes


@dataclass(frozen=True)
class Out:
    """An output of a stage as dvc.lock has it."""

    hash: str
    files: int
    size: int


def outs(lock: Mapping[str, Any]) -> dict[str, Out]:
    """The outputs of all stages of a dvc.lock by path."""
    return {
        item["path"]: Out(
            str(item.get("md5")), int(item.get("nfiles", 1)), int(item.get("size", 0))
        )
        for entry in lock.values()
        for item in entry.get("outs", [])
    }


def checksum(lock: Mapping[str, Any]) -> str:
    """One SHA-256 over the paths and hashes of all outputs in a dvc.lock."""
    return digest({path: out.hash for path, out in outs(lock).items()})


def inputs(lock: Mapping[str, Any], stage: str, code: Path) -> dict[str, str]:
    """Hashes of what a stage depends on, by path from the repository's root.

    A code/S.txt counts as the files that it lists, where `code`, a folder code/, has it as the lock
    does; else as one file.
    """
    found = {}
    for path, md5 in lock_hashes(lock, stage)["deps"].items():
        place = _in_root(path)
        file = code / place.name
        if place.parts[0] != CODE.name or not file.is_file() or _md5(file) != md5:
            found[str(place)] = md5
            continue
        files = listed(file.read_text(encoding="utf-8"))
        found |= {f"{CHECKED_OUT}/{name}": hashed for name, hashed in files.items()}
    return found


def _in_root(path: str) -> PurePosixPath:
    """A path of dvc.lock as one in the repository's root, which is some folders up."""
    parts = PurePosixPath(path).parts
    return PurePosixPath(*[part for part in parts if part not in ("..", ".")])


def _md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()
