"""The outputs that a dvc.lock records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sae_repro.files import digest


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
