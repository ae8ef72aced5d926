"""The store that machines share: what is fetched, what is refused, and training without it."""

import io
import os
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sae_repro import sharedstore
from sae_repro.cellstore import CellStore, deliver
from sae_repro.errors import StudyError
from sae_repro.files import sha256_folder, write_json
from sae_repro.sharedstore import ADDRESS, SharedStore, shared_store, whole
from sae_repro.sharing import sharing, written

from .test_cellstore import Study, WriteKey


class Cells:
    """A cell store of a checkout, whose jobs share what they make."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.inner = folder, CellStore(folder)

    @contextmanager
    def making(self, key: str) -> Iterator[Path | None]:
        with sharing([self.folder / key], "train"), self.inner.making(key) as folder:
            yield folder

    def find(self, key: str) -> Path | None:
        with sharing([self.folder / key], "train"):
            return self.inner.find(key)


class Grid(Study):
    """A cell of some seeds whose jobs run as those of a stage do."""

    def deliver(self, *places: str) -> None:
        jobs = {place: WriteKey(f"key-{place}", self.made) for place in places}

        def make_all(missing: Sequence[WriteKey]) -> None:
            with sharing([self.store.folder / job.key for job in missing], "train"):
                for job in missing:
                    with self.store.making(job.key) as folder:
                        if folder is not None:
                            job.make(folder)

        deliver(self.out, {"cell": jobs}, self.store, summary="summary.json", make_all=make_all)


KEY = "ab" * 32


@pytest.fixture(params=["folder", "file://", "memory://"])
def address(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """An empty shared store, by its address."""
    team = tmp_path / "team"
    team.mkdir()
    named = {"folder": str(team), "file://": f"file://{team}", "memory://": "memory://team/x"}
    monkeypatch.setenv(ADDRESS, named[request.param])
    sharedstore._opened.cache_clear()
    yield named[request.param]
    sharedstore._opened.cache_clear()
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def store() -> SharedStore:
    found = shared_store()
    assert found is not None
    return found


def entry() -> str:
    """The path of the only entry."""
    [only] = store().entries()
    return only.path


def rewritten(change: Any) -> None:
    """Replace the bytes of the only entry by what `change` makes of them."""
    files, path = store().files, entry()
    content = change(files.cat_file(path))
    files.pipe_file(path, content)


def archive(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), kind
            member.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
            made.addfile(member, io.BytesIO(content))
    return file.getvalue()


def make(cells: Cells, value: int = 1) -> None:
    with cells.making(KEY) as folder:
        assert folder is not None
        write_json(folder / "train.json", {"value": value})
        (folder / "deep").mkdir()
        (folder / "deep" / "weights").write_bytes(os.urandom(70_000))


def test_a_second_checkout_makes_nothing(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = Grid(tmp_path / "first"), Grid(tmp_path / "second")
    first.deliver("seed-0", "seed-1")
    second.deliver("seed-0", "seed-1")
    assert (len(first.made), second.made) == (2, [])
    assert sha256_folder(first.out) == sha256_folder(second.out)
    said = capsys.readouterr()
    assert said.out == "train: 2 of 2 from the shared store, as made before\n"
    assert said.err == ""


def test_an_entry_is_whole_and_nothing_else_stays(address: str, tmp_path: Path) -> None:
    here, there = Cells(tmp_path / "here"), Cells(tmp_path / "there")
    make(here)
    assert there.find(KEY) == tmp_path / "there" / KEY
    assert sha256_folder(here.folder / KEY) == sha256_folder(there.folder / KEY)
    assert [found.key for found in store().entries()] == [KEY]
    assert whole(store(), KEY)
    listed = store().files.find(store().root)
    assert len(listed) == 1, "an unfinished file stayed"
    # what is not the entry, in the folder of keys
    assert {p.name for p in here.folder.iterdir()} <= {KEY, f"{KEY}.lock"}


def test_what_another_made_meanwhile_is_fetched_not_made(address: str, tmp_path: Path) -> None:
    late = Cells(tmp_path / "late")
    assert late.find(KEY) is None
    make(Cells(tmp_path / "early"))
    with late.making(KEY) as folder:
        assert folder is None


DAMAGES = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
    "a bit": lambda whole: whole[:40_000] + bytes([whole[40_000] ^ 1]) + whole[40_001:],
    "no archive": lambda whole: os.urandom(3000),
    "a pickle": lambda whole: b"cos\nsystem\n(S'touch hacked'\ntR.",
    "no contents.json": lambda whole: archive((f"{KEY}/train.json", b"{}")),
    "of another key": lambda whole: archive((f"{'cd' * 32}/train.json", b"{}")),
    "outside": lambda whole: archive((f"{KEY}/../../escaped", b"x")),
    "absolute": lambda whole: archive(("/tmp/escaped-from-a-store", b"x")),
    "hidden": lambda whole: whole[:-10240] + archive((f"{KEY}/.hidden", b"x")),
    "a link": lambda whole: archive((f"{KEY}/link", b""), kind=tarfile.SYMTYPE),
    "twice": lambda whole: archive((f"{KEY}/a", b"x"), (f"{KEY}/a", b"y")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_refused_made_here_and_replaced(
    address: str, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(Cells(tmp_path / "first"))
    rewritten(DAMAGES[damage])
    assert not whole(store(), KEY)
    second = Cells(tmp_path / "second")
    assert second.find(KEY) is None
    assert not (second.folder / KEY).exists()
    make(second, value=2)
    said = capsys.readouterr().err
    assert said.count("; made here\n") == len(said.splitlines()) == 2
    assert KEY in said
    assert not list(tmp_path.rglob("*escaped*")) and not Path("/tmp/escaped-from-a-store").exists()
    assert whole(store(), KEY), "the good one took its place"
    third = Cells(tmp_path / "third")
    found = third.find(KEY)
    assert found is not None and sha256_folder(found) == sha256_folder(second.folder / KEY)


def test_writers_of_one_key_at_once_leave_one_whole_entry(address: str, tmp_path: Path) -> None:
    cells = [Cells(tmp_path / str(number)) for number in range(6)]
    for number, one in enumerate(cells):
        one.folder.mkdir()
        folder = one.folder / KEY
        with Cells(tmp_path / f"alone-{number}").making(KEY) as made:
            if made is not None:
                (made / "weights").write_bytes(bytes([number]) * 300_000)
        (tmp_path / f"alone-{number}" / KEY).rename(folder)
    for found in store().entries():
        store().files.rm_file(found.path)
    threads = [
        threading.Thread(target=store().offer, args=(KEY, one.folder / KEY)) for one in cells
    ]
    for thread in threads:
        thread.start()
    reads = [whole(store(), KEY) for _ in range(20) if store().has(KEY)]
    for thread in threads:
        thread.join()
    assert all(reads)
    assert whole(store(), KEY) and not store().faulty
    assert len(store().files.find(store().root)) == 1


class Broken(MemoryFileSystem):
    """A store to which the network is down."""

    protocol = "broken"
    calls = 0

    def info(self, path: str, **kwargs: Any) -> Any:
        type(self).calls += 1
        raise TimeoutError("no route to host")


def test_an_unreachable_store_warns_once_and_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fsspec.register_implementation("broken", Broken, clobber=True)
    monkeypatch.setenv(ADDRESS, "broken://user:secret@host/team")
    sharedstore._opened.cache_clear()
    study = Grid(tmp_path)
    study.deliver("seed-0", "seed-1", "seed-2")
    assert len(study.made) == 3
    said = capsys.readouterr().err
    assert said == (
        f"warning: {ADDRESS} = broken://host/team: TimeoutError: no route to host; "
        "going on without\n"
    )
    assert Broken.calls == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_folder_that_is_not_mounted_is_not_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    late: bool,
) -> None:
    """`late`: it goes while a cell is in work."""
    team = tmp_path / "mnt"
    monkeypatch.setenv(ADDRESS, str(team))
    sharedstore._opened.cache_clear()
    if late:
        team.mkdir()
    cells = Cells(tmp_path / "cells")
    with cells.making(KEY) as folder:
        assert folder is not None
        (folder / "weights").write_bytes(b"1")
        if late:
            team.rmdir()
    assert not team.exists()
    assert cells.find(KEY) is not None
    assert "FileNotFoundError: no such folder; going on without" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("team/store", "give the whole path"),
        ("nothing-known://bucket", "Protocol not known: nothing-known"),
    ],
)
def test_an_address_that_can_be_none_stops_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, said: str
) -> None:
    monkeypatch.setenv(ADDRESS, named)
    study = Grid(tmp_path)
    with pytest.raises(StudyError, match=said):
        study.deliver("seed-0")
    assert study.made == []


def test_bypassing_the_store_bypasses_the_shared_one(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAE_REPRO_NO_STORE", "1")
    make(Cells(tmp_path / "one"))
    assert store().entries() == []


def test_entries_of_native_kernels_are_kept_by_processor(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAE_REPRO_BITS", "native")
    monkeypatch.setattr(sharedstore, "processor_name", lambda: "Some CPU @ 3/4 GHz")
    make(Cells(tmp_path / "one"))
    assert [found.kernels for found in store().entries()] == ["native-Some-CPU-3-4-GHz"]
    monkeypatch.setattr(sharedstore, "processor_name", lambda: "Another CPU")
    assert Cells(tmp_path / "two").find(KEY) is None
    monkeypatch.setenv("SAE_REPRO_BITS", "portable")
    assert Cells(tmp_path / "three").find(KEY) is None


def test_pruning_takes_what_is_old_and_what_was_never_finished(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(Cells(tmp_path / "one"))
    unfinished = entry().rpartition("/")[0] + f"/.{KEY}.1234.tmp"
    store().files.pipe_file(unfinished, b"half")
    assert store().prune(datetime.now(UTC) - timedelta(hours=1)) == []
    assert store().files.isfile(unfinished), "it may be in the making"
    written = datetime.now(UTC) - timedelta(days=9)
    monkeypatch.setattr(SharedStore, "_written", lambda self, path: written)
    assert [old.key for old in store().prune(datetime.now(UTC) - timedelta(days=10))] == []
    assert not store().files.isfile(unfinished)
    assert [old.key for old in store().prune(datetime.now(UTC) - timedelta(days=8))] == [KEY]
    assert store().files.find(store().root) == []


class Leaving:
    """A job that says what it leaves."""

    def writes(self) -> list[Path]:
        state = Path(".sae-repro")
        return [state / "cells" / KEY, state / "checkpoints" / KEY, state / "costs" / f"{KEY}.json"]


def test_only_entries_of_the_cell_store_are_shared() -> None:
    """A checkpoint is named by the key of its cell, whose entry it is not."""
    assert written([(Leaving(), 3), (object(), 1)]) == [Path(".sae-repro/cells") / KEY]
