"""Orders: which files go along, what waits for what, and how results take their places."""

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_repro.contents import examine, sealed_folder
from sae_repro.errors import StudyError
from sae_repro.files import sha256_file
from sae_repro.orders import (
    ArrivalError,
    Entry,
    Hashes,
    Order,
    Queue,
    can_travel,
    left_behind,
    order_of,
    put_in_place,
)


@dataclass(frozen=True)
class Job:
    read: tuple[str, ...] = ()
    written: tuple[str, ...] = ()

    def reads(self) -> list[Path]:
        return [Path(path) for path in self.read]

    def writes(self) -> list[Path]:
        return [Path(path) for path in self.written]


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, text: str = "text") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def test_an_order_names_the_files_by_content_and_leaves_out_those_that_are_not_there() -> None:
    for path in ("in/a", "in/sub/b", "in/b.lock", "in/.c.12.tmp", "out/old", "other"):
        write(path, path)
    order = order_of(Job(("in", "missing"), ("out", "new")), 3, Hashes())
    assert [entry.path for entry in order.inputs] == ["in/a", "in/sub/b", "out/old"]
    assert all(entry.sha256 == sha256_file(Path(entry.path)) for entry in order.inputs)
    assert (order.number, order.outputs) == (3, ("out", "new"))


def test_a_file_that_changes_is_hashed_anew() -> None:
    hashes = Hashes()
    write("a", "one")
    before = hashes.entry(Path("a"))
    write("a", "other")
    assert hashes.entry(Path("a")) != before


@pytest.mark.parametrize("path", ["/etc/passwd", "../beside", "in/../../beside"])
def test_a_job_with_files_outside_the_study_stays(path: str) -> None:
    assert can_travel(Job(("in",), ("out",)))
    assert not can_travel(Job((path,), ("out",)))
    assert not can_travel(Job(("in",), (path,)))
    assert not can_travel(lambda report: None)


def arrive(files: dict[str, str]) -> tuple[list[Entry], Path]:
    """What another machine would send of `files`, and the folder where it has arrived."""
    there, arrived = Path("there"), Path("arrived")
    for folder in (there, arrived):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    entries = []
    for number, (path, text) in enumerate(files.items()):
        (arrived / str(number)).write_text(text)
        sha256 = sha256_file(arrived / str(number))
        entries.append(Entry(path, sha256, len(text)))
    return entries, arrived


def order(*outputs: str) -> Order:
    return Order(None, 0, (), outputs)


def test_files_and_folders_take_their_places_and_what_is_gone_there_goes_here() -> None:
    write("checkpoint", "old")
    entries, arrived = arrive({"out/a": "A", "out/sub/b": "B", "cost.json": "{}"})
    put_in_place(order("out", "cost.json", "checkpoint"), entries, arrived)
    assert Path("out/a").read_text() == "A"
    assert Path("out/sub/b").read_text() == "B"
    assert Path("cost.json").read_text() == "{}"
    assert not Path("checkpoint").exists()


def test_nothing_takes_its_place_when_one_file_is_not_what_was_sent() -> None:
    entries, arrived = arrive({"out/a": "A", "out/b": "B"})
    (arrived / "1").write_text("C")
    with pytest.raises(ArrivalError, match="out/b"):
        put_in_place(order("out"), entries, arrived)
    assert not Path("out").exists()


@pytest.mark.parametrize("path", ["elsewhere", "out/../../x", "/tmp/x", "output"])
def test_a_path_that_the_order_does_not_name_is_refused(path: str) -> None:
    with pytest.raises(StudyError, match="not awaited"):
        put_in_place(order("out"), *arrive({path: "A"}))


def test_a_sealed_folder_is_examined_and_one_that_is_whole_here_stays() -> None:
    with sealed_folder(Path("cells/key")) as folder:
        (folder / "weights").write_text("W")
    files = {f"cells/key/{p.name}": p.read_text() for p in Path("cells/key").iterdir()}
    before = Path("cells/key/weights").stat().st_ino
    put_in_place(order("cells/key"), *arrive(files))
    assert Path("cells/key/weights").stat().st_ino == before
    shutil.rmtree("cells/key")
    put_in_place(order("cells/key"), *arrive(files))
    examine(Path("cells/key"))
    shutil.rmtree("cells/key")
    with pytest.raises(ArrivalError, match="changed"):
        put_in_place(order("cells/key"), *arrive({**files, "cells/key/weights": "V"}))
    assert not Path("cells/key").exists()


def test_what_a_job_left_is_listed_by_content() -> None:
    write("out/a", "A")
    write("out/a.lock")
    write("other")
    assert left_behind(["out", "none"]) == [Entry("out/a", sha256_file(Path("out/a")), 1)]


def test_a_job_waits_for_what_it_reads_and_for_another_of_the_same_result() -> None:
    jobs = [Job(("in", "ref"), ("a",)), Job(("in",), ("ref",)), Job((), ("a",)), Job((), ("b",))]
    queue = Queue(jobs)
    assert queue.following() == 1
    assert queue.following() == 2, "0 waits for the reference"
    assert queue.following() == 3
    queue.done(1)
    assert queue.following() is None, "2 makes the same"
    queue.again(2)
    queue.done(3)
    assert queue.following() == 2, "a lost one comes first"
    queue.done(2)
    assert queue.following() == 0
    assert queue
    queue.done(0)
    assert not queue


@given(
    st.lists(st.tuples(st.sets(st.integers(0, 4)), st.integers(0, 6)), max_size=8),
    st.randoms(use_true_random=False),
)
def test_all_jobs_come_to_their_ends_and_none_beside_one_that_writes_what_it_reads(
    shapes: list[tuple[set[int], int]], chance: random.Random
) -> None:
    jobs = [
        Job(tuple(f"{n}" for n in reads if n < written), (f"{written}",))
        for reads, written in shapes
    ]
    queue, work, ended = Queue(jobs), set[int](), list[int]()
    while queue:
        while (number := queue.following()) is not None:
            for other in work:
                assert not set(jobs[number].read) & set(jobs[other].written)
                assert jobs[number].written != jobs[other].written
            work.add(number)
        assert work, "nothing is left waiting for ever"
        number = chance.choice(sorted(work))
        work.remove(number)
        if chance.random() < 0.2:
            queue.again(number)
        else:
            queue.done(number)
            ended.append(number)
    assert sorted(ended) == list(range(len(jobs)))
