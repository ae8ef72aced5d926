"""Store of finished cells that machines and people share: a folder, or an address of fsspec.

SAE_REPRO_STORE names it. An entry is one file, `<kernels>/<key>.tar`: the sealed folder of a key,
uncompressed, under the key as its name. A file in the making has another name until it is whole.
Portable kernels give the same bits on all machines; entries of native ones are kept by processor,
as their bits may differ between two.

Entries are bytes to this module: nothing is unpickled or run, and whoever fetches one checks it
against its contents.json. Who may write there can replace a result, as in any cache of a team.
"""

import os
import re
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from shutil import copyfileobj
from typing import Any

from sae_repro.contents import Changed, examine
from sae_repro.errors import StudyError, one_line
from sae_repro.numerics.kernels import in_use
from sae_repro.numerics.processor import processor_name

ADDRESS = "SAE_REPRO_STORE"
END = ".tar"
OBJECTS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss"}
"""Protocols of object stores, where a file is there once it is whole, and renaming is a copy."""


class RefusedError(Exception):
    """An entry that is no sealed folder of its key; says what is wrong."""


class UnreachableError(Exception):
    """The store can't be reached, or refuses; it has been said."""


@dataclass(frozen=True)
class Entry:
    """A file of the store."""

    path: str
    bytes: int
    written: datetime

    @property
    def kernels(self) -> str:
        """`portable`, or `native-` and the processor."""
        return PurePosixPath(self.path).parent.name

    @property
    def key(self) -> str:
        """The key of what it holds."""
        return PurePosixPath(self.path).name.removesuffix(END)


@dataclass
class SharedStore:
    """Entries by key below `root` of a file system of fsspec.

    The first fault of the store is said on standard error; from then on it is left alone by this
    process (UnreachableError), so that a run does not wait for it again and again.
    """

    address: str
    """As people write it, without a password."""
    files: Any
    root: str
    kernels: str
    faulty: bool = field(default=False, init=False)

    def has(self, key: str) -> bool:
        """Whether there is an entry of `key`; UnreachableError where that can't be known."""
        with self._reaching():
            return self._there(self._path(key))

    def fetch(self, key: str, folder: Path) -> None:
        """Unpack the entry of `key` into `folder`, which is empty, for the caller to examine.

        RefusedError for what is no such entry, UnreachableError where it can't be read.
        """
        with self._reaching(), self.files.open(self._path(key), "rb") as file:
            try:
                with tarfile.open(fileobj=file, mode="r|") as archive:
                    for member in archive:
                        _unpack(archive, member, key, folder)
            except (tarfile.TarError, EOFError) as error:
                raise RefusedError(f"no whole archive ({error})") from None

    def offer(self, key: str, folder: Path) -> None:
        """Write the entry of `key` from its sealed `folder`, over any that is there.

        A reader sees the one or the other. UnreachableError where it can't be written.
        """
        with (
            self._reaching(),
            tempfile.TemporaryDirectory(prefix=".offer-", dir=folder.parent) as t,
        ):
            packed = Path(t) / "packed"
            _pack(key, folder, packed)
            path = self._path(key)
            self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
            if OBJECTS & set(_protocols(self.files)):
                self.files.put_file(str(packed), path)
                return
            unfinished = f"{path.rpartition('/')[0]}/.{key}.{uuid.uuid4().hex}.tmp"
            try:
                self.files.put_file(str(packed), unfinished)
                self.files.mv(unfinished, path)
            except BaseException:
                with suppress(Exception):
                    self.files.rm_file(unfinished)
                raise

    def entries(self) -> list[Entry]:
        """All entries, of any kernels, by path; UnreachableError where they can't be listed."""
        return [entry for entry in self._listed() if entry.path.endswith(END)]

    def prune(self, before: datetime) -> list[Entry]:
        """Delete the entries written before that time, and unfinished files; the entries.

        An unfinished file goes once it is a day old: it may be in the making.
        """
        abandoned = datetime.now(UTC) - timedelta(days=1)
        old = [e for e in self._listed() if e.path.endswith(END) and e.written < before]
        unfinished = [
            e for e in self._listed() if e.path.endswith(".tmp") and e.written < abandoned
        ]
        with self._reaching():
            for entry in (*old, *unfinished):
                self.files.rm_file(entry.path)
        return old

    def _listed(self) -> list[Entry]:
        with self._reaching():
            if not self._there(self.root):
                return []
            found = self.files.find(self.root, detail=True)
            return [
                Entry(path, int(facts["size"]), self._written(path))
                for path, facts in sorted(found.items())
                if path.endswith((END, ".tmp"))
            ]

    def _there(self, path: str) -> bool:
        self.files.invalidate_cache()
        try:
            self.files.info(path)  # `exists` and `isfile` call every fault an absence
        except FileNotFoundError:
            return False
        return True

    def _written(self, path: str) -> datetime:
        time: datetime = self.files.modified(path)
        return time if time.tzinfo else time.replace(tzinfo=UTC)

    def _path(self, key: str) -> str:
        return f"{self.root.rstrip('/')}/{self.kernels}/{key}{END}"

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        if self.faulty:
            raise UnreachableError
        try:
            if "file" in _protocols(self.files) and not Path(self.root).is_dir():
                # not made here: where a team's disk is not mounted, this would be a folder of ours
                raise FileNotFoundError("no such folder")
            yield
        except RefusedError:
            raise
        except Exception as error:  # of as many kinds as there are stores
            self.faulty = True
            print(
                f"warning: {ADDRESS} = {self.address}: {one_line(_said(error))}; going on without",
                file=sys.stderr,
            )
            raise UnreachableError from None


def shared_store() -> SharedStore | None:
    """The store that SAE_REPRO_STORE names; None without one, and where none can be opened.

    StudyError for an address that can be none on this machine.
    """
    address = os.environ.get(ADDRESS, "").strip()
    if not address:
        return None
    if in_use() == "portable":
        kernels = "portable"
    else:
        kernels = "native-" + re.sub(r"[^A-Za-z0-9]+", "-", processor_name()).strip("-")
    return _opened(address, kernels)


@cache
def _opened(address: str, kernels: str) -> SharedStore | None:
    from fsspec.core import url_to_fs

    shown = re.sub(r"//[^/@]*@", "//", address)
    if "://" not in address and not Path(address).expanduser().is_absolute():
        raise StudyError(
            f"{ADDRESS} = {shown}: relative to each study's folder; give the whole path, or an "
            "address such as s3://bucket/path"
        )
    try:
        files, root = url_to_fs(address)
    except ImportError as error:
        raise StudyError(f"{ADDRESS} = {shown}: {one_line(str(error))}, with pip") from None
    except ValueError as error:
        raise StudyError(
            f"{ADDRESS} = {shown}: {one_line(str(error))}; give a folder's whole path, or an "
            "address that fsspec knows, such as s3://bucket/path"
        ) from None
    except Exception as error:  # some connect at once
        print(
            f"warning: {ADDRESS} = {shown}: {one_line(_said(error))}; going on without",
            file=sys.stderr,
        )
        return None
    return SharedStore(shown, files, root, kernels)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def _protocols(files: Any) -> tuple[str, ...]:
    protocol = files.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _pack(key: str, folder: Path, packed: Path) -> None:
    """The files of `folder` as an archive without owners, times and hidden files."""
    with tarfile.open(packed, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            within = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in within.parts):
                member = tarfile.TarInfo(f"{key}/{within.as_posix()}")
                member.size, member.mode = path.stat().st_size, 0o644
                with path.open("rb") as file:
                    archive.addfile(member, file)


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, key: str, folder: Path) -> None:
    """Write a member to its place in `folder`; RefusedError where it has none there."""
    top, *parts = PurePosixPath(member.name).parts or ("",)
    # hidden files are in no contents.json: nobody would check them
    if top != key or not parts or any(part.startswith(".") for part in parts):
        raise RefusedError(f"has {one_line(member.name)!r}, which is no file of this key")
    path = folder.joinpath(*parts)
    file = archive.extractfile(member) if member.isreg() else None
    if file is None or path.exists():
        raise RefusedError(f"{one_line(member.name)}: no ordinary file, or there twice")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as target:
        copyfileobj(file, target)


def whole(store: SharedStore, key: str) -> bool:
    """Whether the entry of `key` is as it was sealed; UnreachableError as `fetch`."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            store.fetch(key, Path(folder))
            examine(Path(folder))
        except (RefusedError, Changed):
            return False
        return True
