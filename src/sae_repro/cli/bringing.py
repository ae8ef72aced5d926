"""Inputs of a new study, brought to where a clone of the repository has them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sae_repro.errors import StudyError

INPUTS = "inputs"
SMALL_BYTES = 50_000_000
"""Up to this size an input is copied for git; beyond it DVC keeps it."""


def no_file(path: Path) -> str:
    """Why a named input can't be brought, of what is no file."""
    if path.is_dir():
        return "is a folder; name its files"
    return "is no file (a pipe, or a device)" if path.exists() else "no such file"


def bring(path: Path, study: Path, *, model: bool = False) -> tuple[str, list[str]]:
    """(the place of a file or folder as params.yaml of `study` names it, lines to show).

    What lies in the repository, and is not ignored there, stays. Everything else is copied into
    the study: for git up to `SMALL_BYTES`, for `dvc add` beyond. A larger model is left where it
    is, as it may be as large as the disk.
    """
    if _travels(path):
        return Path(os.path.relpath(path, study)).as_posix(), []
    size = _size(path)
    if model and size > SMALL_BYTES:
        return Path(os.path.relpath(path, study)).as_posix(), [
            f"warning: {path} has {size / 1e6:,.0f} MB and stays where it is: another clone needs "
            "it at the same place, or a model of the hub"
        ]
    # a link is named as it is: what it points to may end in no .csv
    name = path.name if path.name not in ("", "..") else path.resolve().name
    target = study / INPUTS / name
    if target.exists():
        raise StudyError(f"{path}: another input is called {target.name} too; rename one")
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        target.mkdir()
        for file in sorted(path.iterdir()):  # a model is pinned by its own files alone
            if file.is_file():
                shutil.copyfile(file, target / file.name)
    else:
        shutil.copyfile(path, target)
    place = target.relative_to(study).as_posix()
    if size <= SMALL_BYTES:
        return place, [f"copied {path} to {target}: commit it with the study"]
    _dvc_add(target)
    return place, [
        f"copied {path} to {target} and added it to DVC: commit {target}.dvc, `dvc push` sends it"
    ]


def _travels(path: Path) -> bool:
    """Whether a clone would have it: inside the repository, the working folder, not ignored."""
    if not path.resolve().is_relative_to(Path.cwd().resolve()):
        return False
    try:
        # of an absolute path git reads no character as a pattern
        command = ["git", "check-ignore", "-q", "--", str(path.absolute())]
        asked = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        return True
    return asked.returncode != 0  # 128: no git repository, so that nothing is ignored


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())


def _dvc_add(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "add", "-q", "--", str(path)], capture_output=True, text=True
    )
    if done.returncode:
        raise StudyError(f"dvc add {path}: {(done.stderr or done.stdout).strip()}")
