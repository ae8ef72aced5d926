"""Provenance of a result: the commit, dvc.lock's hashes, versions, the machine."""

import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
    """The stages of a study's dvc.lock; empty if there is none."""
    path = study / "dvc.lock"
    stages: dict[str, Any] = {}
    if path.is_file():
        stages = read_yaml(path, values=LOCK_VALUES).get("stages", {})
    return stages


def lock_hashes(lock: Mapping[str, Any], stage: str) -> dict[str, dict[str, str]]:
    """{"deps": {path: hash}, "outs": {path: hash}} of a stage in `lock`; empty if not there."""
    entry = lock.get(stage, {})
    return {
        kind: {item["path"]: item.get("md5", "") for item in entry.get(kind, [])}
        for kind in ("deps", "outs")
    }
