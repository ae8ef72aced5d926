"""Contents of a folder that a stage or the cell store made: a hash of each file, checked when read.

contents.json lists the folder's files by path. A folder within it that has a contents.json of its
own stands there by that file alone, so that folders of cells are checked, kept and replaced by
themselves. Hidden files don't count.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TypeGuard

from sae_repro.errors import StudyError
from sae_repro.files import digest, read_object, remedy, replacing_folder, sha256_file, write_json

CONTENTS = "contents.json"


class Changed(Exception):  # noqa: N818 - a finding, which its finder may mend
    """A file that is not what its folder's contents.json says."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path, self.what = path, what


@contextmanager
def sealed_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which replaces `path` once the block ends well, with its contents.json."""
    with replacing_folder(path) as folder:
        yield folder
        seal(folder)


def seal(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Write contents.json of the files in `folder`; `known` are hashes that need no reading."""
    known = known or {}
    files = {name: known.get(name) or sha256_file(folder / name) for name in _names(folder)}
    listing = {"sha256": digest(files), "files": files}
    path = folder / CONTENTS
    if not path.is_file() or _read(path) != listing:
        write_json(path, listing)


def listed(folder: Path) -> dict[str, str]:
    """The hashes in contents.json by path; Changed where it is missing or itself damaged."""
    listing = _read(folder / CONTENTS)
    files = listing.get("files")
    if not _are_hashes(files) or listing.get("sha256") != digest(files):
        raise Changed(folder / CONTENTS, "missing or damaged")
    return files


def examine(folder: Path, *parts: str) -> None:
    """Changed where a file of `folder` is not as sealed; of `parts`, names in it, if any is given.

    Sealed folders within are examined, too.
    """
    files = listed(folder)
    for name, sha256 in files.items():
        path = folder / name
        if not path.is_file():
            raise Changed(path, "missing")
        if parts and not any(PurePosixPath(name).is_relative_to(part) for part in parts):
            continue
        if sha256_file(path) != sha256:
            raise Changed(path, "changed")
        if path.name == CONTENTS:
            examine(path.parent)
    for name in _names(folder):
        if name not in files:
            raise Changed(folder / name, "not of its making")


def check(folder: Path, *parts: str) -> None:
    """StudyError that names a file of artifacts/<stage> which is not as the stage wrote it.

    Only the `parts` of it are read, if any is given.
    """
    if not folder.is_dir():
        raise StudyError(f"{folder}: missing; {remedy(folder / CONTENTS)}")
    try:
        examine(folder, *parts)
    except Changed as fault:
        what = {
            "missing": "missing, where the stage wrote it",
            "changed": "changed since the stage wrote it",
            "not of its making": "not written by the stage",
        }.get(fault.what, fault.what)
        raise StudyError(f"{fault.path}: {what}; {remedy(fault.path)}") from None


def check_if_sealed(folder: Path, *parts: str) -> None:
    """As `check`; a folder without contents.json passes: it is of another making, or unfinished."""
    if (folder / CONTENTS).exists():
        check(folder, *parts)


def _are_hashes(files: object) -> TypeGuard[dict[str, str]]:
    return isinstance(files, dict) and all(isinstance(sha256, str) for sha256 in files.values())


def _read(path: Path) -> dict[str, object]:
    try:
        return read_object(path)
    except StudyError:
        return {}


def _names(folder: Path) -> list[str]:
    """The files of `folder` by path, sorted; of a sealed folder within, its contents.json."""
    names: list[str] = []
    for inner, folders, files in os.walk(folder):
        within = PurePosixPath(Path(inner).relative_to(folder).as_posix())
        if str(within) != "." and CONTENTS in files:
            folders.clear()
            files = [CONTENTS]
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [(within / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(name for name in names if name != CONTENTS)
