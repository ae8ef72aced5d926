"""Provenance of a result: the commit, dvc.lock's hashes, versions, the machine."""

import hashlib
import json
import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sae_repro.errors import StudyError
from sae_repro.params import LOCK_VALUES, read_yaml

PACKAGES = ("sae-repro", "torch", "transformers", "transformer-lens", "datasets", "numpy", "dvc")


def git_state(folder: Path) -> dict[str, str]:
    """The commit checked out, and whether tracked files differ from it; empty without git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
        return {"git_commit": commit, "git_dirty": str(bool(changes)).lower()}
    except (OSError, subprocess.CalledProcessError):
        return {}


def _git(folder: Path, *arguments: str) -> str:
    process = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return process.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def host() -> dict[str, str]:
    """The name and processor of this machine."""
    return {"host": socket.gethostname(), "machine": f"{platform.system()} {platform.machine()}"}


def repository_url(folder: Path) -> str:
    """The web page of the repository's origin, without user and password.

    Empty where there is no origin, or only a path on this machine.
    """
    try:
        origin = _git(folder, "remote", "get-url", "origin")
    except (OSError, subprocess.CalledProcessError):
        return ""
    host = r"(?:\S*@)?(?P<host>[\w-]+(?:\.[\w-]+)+)"
    match = re.fullmatch(
        rf"(?:https?|ssh)://{host}(?::\d+)?/(?P<path>\S+?)/?", origin.removesuffix(".git")
    ) or re.fullmatch(rf"{host}:(?P<path>[^/]\S*?)/?", origin.removesuffix(".git"))
    return f"https://{match['host']}/{match['path']}" if match else ""


def read_lock(study: Path) -> dict[str, Any]:
    """The stages of a study's dvc.lock; empty if there is none, StudyError if it is damaged."""
    path = study / "dvc.lock"
    stages: Any = {}
    if path.is_file():
        stages = read_yaml(path, values=LOCK_VALUES).get("stages", {})
    if not _is_lock(stages):
        raise StudyError(
            f"{path}: not as DVC writes it; `git checkout {path}` brings back the committed one, "
            "`dvc repro` writes it anew"
        )
    lock: dict[str, Any] = stages
    return lock


def _is_lock(stages: Any) -> bool:
    """Whether every stage has lists of files with a path each."""
    return isinstance(stages, dict) and all(
        isinstance(entry, dict)
        and isinstance(items := entry.get(kind, []), list)
        and all(isinstance(item, dict) and isinstance(item.get("path"), str) for item in items)
        for entry in stages.values()
        for kind in ("deps", "outs")
    )


def lock_hashes(lock: Mapping[str, Any], stage: str) -> dict[str, dict[str, str]]:
    """{"deps": {path: hash}, "outs": {path: hash}} of a stage in `lock`; empty if not there."""
    entry = lock.get(stage, {})
    return {
        kind: {item["path"]: item.get("md5", "") for item in entry.get(kind, [])}
        for kind in ("deps", "outs")
    }


def check_recorded(folder: Path, stage: str, out: Path, *, within: Path = Path()) -> None:
    """StudyError where a stage's `out` is not as DVC recorded it in dvc.lock.

    For what has no contents.json: files for git. `within` is the folder of the pipeline in the
    study's `folder`. What was never recorded passes.
    """
    lock = lock_hashes(read_lock(folder / within), stage)["outs"]
    recorded, path = lock.get(out.as_posix()), folder / out
    if not recorded or not path.exists() or _md5(path) == recorded:
        return
    target = stage if within == Path() else f"{within / 'dvc.yaml'}:{stage}"
    raise StudyError(
        f"{path}: changed since the stage wrote it: not as {folder / within / 'dvc.lock'} says; "
        f"`dvc repro --force --single-item {target}` makes it again"
    )


def as_locked(folder: Path, stage: str, *, within: Path = Path()) -> bool:
    """Whether all inputs and outputs of a stage are there and as dvc.lock has them.

    `within` is the folder of the pipeline in `folder`, where its stages run.
    """
    hashes = lock_hashes(read_lock(folder / within), stage)
    files = [(folder / path, md5) for side in hashes.values() for path, md5 in side.items()]
    return bool(files) and all(path.exists() and _md5(path) == md5 for path, md5 in files)


def _md5(path: Path) -> str:
    """The MD5 of a file, or of a folder as DVC computes it: over those of its files."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    files = {
        file.relative_to(path).as_posix(): _md5(file)
        for file in path.rglob("*")
        if not file.name.startswith(".") and "__pycache__" not in file.parts and file.is_file()
    }
    ordered = sorted(files, key=lambda name: name.split("/"))
    entries = [{"md5": files[name], "relpath": name} for name in ordered]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"
