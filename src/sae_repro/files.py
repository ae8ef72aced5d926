"""Atomic writes and checksums: a reader sees a whole file or none, also after a power loss.

What is written obeys the umask, whatever library wrote it.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from sae_repro.errors import StudyError, one_line


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved over it once the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        # some libraries write to a private file and rename it: the mode is that of an ordinary one
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """This process's temporary name for `path`; what killed writers left is removed."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.(?:old\.)?(\d+)\.tmp")
    for sibling in path.parent.iterdir():
        found = ours.fullmatch(sibling.name)
        if found and not _lives(int(found[1])):
            _remove(sibling)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    """Whether `pid` is another process that runs; our own may use its name again."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _sync(path: Path) -> None:
    """Have the file's bytes, or the folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty temporary folder beside `path`, which replaces it once the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    old = path.with_name(f".{path.name}.old.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        settle(temporary)
        if path.exists():
            path.replace(old)  # a killed deletion would leave half a folder under its name
        temporary.replace(path)
        _sync(path.parent)
    finally:
        _remove(temporary)
        _remove(old)


def settle(folder: Path) -> None:
    """Have all of `folder` on the disk, its files readable by whom the umask lets read."""
    mode = folder.stat().st_mode & 0o666
    for inner, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(inner, name)
            if not path.is_symlink():
                path.chmod(mode)
                _sync(path)
        _sync(Path(inner))


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def canonical_json(value: Any) -> str:
    """`value` as JSON with sorted keys and no white space; NaN and infinity raise ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write `value` for people and diffs: keys in the order given, two spaces, no NaN."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file; StudyError where it is missing or damaged, and what restores it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path}: missing; {remedy(path)}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StudyError(f"{path}: can't be read ({reason}); {remedy(path)}") from None


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; StudyError as `read_json`, and where it holds something else."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise StudyError(f"{path}: holds {type(value).__name__}, not a JSON object; {remedy(path)}")
    return value


STAGES = ("corpus", "subject", "extract", "train", "evaluate", "judge", "control", "track")
"""The stages with a folder in artifacts/."""


def remedy(path: Path) -> str:
    """The step that brings a missing or damaged file back: a stage's own, or somebody's."""
    above = path.absolute().parts[:-1]
    if ".sae-repro" in above:
        return "the next `dvc repro` makes it again"
    stages = [stage for place, stage in pairwise(above) if place == "artifacts"]
    if stages and (stage := stages[-1]) in STAGES:
        # DVC takes a file of the same size and time for unchanged: neither plain `dvc repro` nor
        # `dvc checkout` looks into it
        return f"`dvc repro --force --single-item {stage}` makes it again"
    return "give the whole file: fetch or write it again from where it came"


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OWNER = "let yourself read and write there (`ls -ld` shows whose it is), or move the study"
_PLACE = "something else stands in its place: move that away"
_REFUSED = {
    errno.EACCES: _OWNER,
    errno.EPERM: _OWNER,
    errno.EROFS: _OWNER,
    errno.EEXIST: _PLACE,
    errno.EISDIR: _PLACE,
    errno.ENOTDIR: _PLACE,
    errno.ELOOP: _PLACE,
    errno.EMFILE: "raise the limit, as with `ulimit -n 65536`",
    errno.ENFILE: "end other programs, or raise the machine's limit (fs.file-max)",
    errno.ENAMETOOLONG: "file systems take names of 255 bytes; give a shorter one",
    errno.EIO: "check the disk (`dmesg` has what it reported)",
}
# how libraries say that a write fell short, where they raise no error of the system's
_FULL_WORDS = re.compile(
    r"No space left on device|disk is full|File too large|Disk quota|\d+ requested and \d+ written"
)


def disk_fault(error: BaseException) -> str | None:
    """A line on a full disk or a refused file, and what to do; None where `error` is neither."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL or _FULL_WORDS.search(str(error)):
        place = _named(error) or min(
            (Path.cwd(), Path(tempfile.gettempdir())), key=lambda path: shutil.disk_usage(path).free
        )
        free = shutil.disk_usage(place if place.is_dir() else place.parent).free
        return one_line(
            f"{place}: can't be written: no room on its disk, or a limit is reached ({error}; "
            f"{free:,} bytes free): make room there and run again, finished parts are kept"
        )
    if number in _REFUSED and (refused := _named(error)):
        return one_line(f"{refused}: {os.strerror(number)}: {_REFUSED[number]}, and run again")
    return None


def _named(error: BaseException) -> Path | None:
    """The path of an error of the system's, or the folder where it would have been."""
    name = error.filename if isinstance(error, OSError) else None
    if not isinstance(name, str):
        return None
    path = Path(name)
    try:
        return path if path.parent.is_dir() else None
    except OSError:  # the folder's own name is too long
        return path


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(folder: Path, *, pattern: str = "**/*") -> str:
    """SHA-256 over the names and contents of the files in `folder` that match `pattern`.

    Caches of Python (`__pycache__`) and hidden files don't count.
    """
    entries = {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.glob(pattern))
        if path.is_file()
        and not any(p == "__pycache__" or p.startswith(".") for p in path.relative_to(folder).parts)
    }
    return digest(entries)
