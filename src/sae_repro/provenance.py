"""Where a result comes from: the commit, the lock's hashes, the versions."""

import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sae_repro.params import read_yaml

PACKAGES = ("sae-repro", "torch", "transformers", "transformer-lens", "datasets", "numpy", "dvc")


def git_state(folder: Path) -> dict[str, str]:
    """The commit checked out, and whether tracked files differ from it; empty without git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return {
            "git_commit": commit,
            "git_dirty": str(bool(git("status", "--porcelain", "--untracked-files=no"))).lower(),
        }
    except (OSError, subprocess.CalledProcessError):
        return {}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def host() -> dict[str, str]:
    """Which machine this is: its name and processor."""
    return {"host": socket.gethostname(), "machine": f"{platform.system()} {platform.machine()}"}


def lock_hashes(study: Path, stage: str) -> dict[str, dict[str, str]]:
    """{"deps": {path: hash}, "outs": {path: hash}} of a stage in dvc.lock; empty if not there."""
    path = study / "dvc.lock"
    stages: dict[str, Any] = read_yaml(path).get("stages", {}) if path.is_file() else {}
    entry = stages.get(stage, {})
    return {
        kind: {item["path"]: item.get("md5", "") for item in entry.get(kind, [])}
        for kind in ("deps", "outs")
    }
