"""Files between machines: fetched once, checked on arrival, worked on, and sent back whole."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sae_repro import travelling
from sae_repro.errors import StudyError
from sae_repro.orders import Entry, Hashes, Order, order_of, put_in_place
from sae_repro.travelling import Depot, Outcome, carry_out

SIZES = (0, 1, 63, 64, 65, 1000)


class Direct:
    """The connection with a depot on the same machine, which can damage what passes."""

    def __init__(self, depot: Depot) -> None:
        self.depot, self.fetched, self.told = depot, [], []  # type: ignore[var-annotated]
        self.damaged = 0
        """How many of the next pieces arrive damaged."""

    def pieces(self, sha256: str, count: int) -> Iterator[bytes]:
        self.fetched.append(sha256)
        for number in range(count):
            piece = self.depot.piece(sha256, number)
            if self.damaged:
                self.damaged -= 1
                piece = bytes([piece[0] ^ 1]) + piece[1:]
            yield piece

    def send(self, attempt: str, file: int, pieces: Iterator[bytes]) -> None:
        for number, piece in reversed(list(enumerate([*pieces] or [b""]))):
            self.depot.take(attempt, file, number, piece)

    def report(self, number: int, done: int) -> None:
        self.told.append((number, done))


@dataclass(frozen=True)
class Job:
    def reads(self) -> list[Path]:
        return [Path("in")]

    def writes(self) -> list[Path]:
        return [Path("out"), Path("checkpoint")]


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Direct:
    """The working folder is a study's; the node's folder lies elsewhere; pieces are small."""
    (tmp_path / "study/in").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.setenv("SAE_REPRO_NODE_FOLDER", str(tmp_path / "node"))
    monkeypatch.setattr(travelling, "PIECE", 64)
    for size in SIZES:
        Path(f"in/{size}").write_bytes(bytes(range(256)) * 4 if size == 1000 else os.urandom(size))
    return Direct(Depot(tmp_path / "study", tmp_path / "arriving"))


def send_out(line: Direct, work: Callable[[], None]) -> tuple[Order, Outcome]:
    """Carry out an order whose job does `work`."""
    order = order_of(Job(), 7, Hashes())
    line.depot.offer(order.inputs)

    def run(order: Order, report: Callable[[int], None]) -> tuple[str, float]:
        for done in range(100):
            report(done)
        work()
        return "done", 1.5

    return order, carry_out(order, "attempt", line, run)


def copy_all() -> None:
    Path("out").mkdir()
    for size in SIZES:
        Path(f"out/{size}").write_bytes(Path(f"in/{size}").read_bytes())


def test_files_go_there_and_come_back_to_the_byte(line: Direct, tmp_path: Path) -> None:
    def work() -> None:
        assert Path.cwd().is_relative_to(tmp_path / "node")
        copy_all()

    order, outcome = send_out(line, work)
    assert Path.cwd() == tmp_path / "study"
    assert (outcome.line, outcome.seconds, outcome.node) == ("done", 1.5, os.uname().nodename)
    put_in_place(order, outcome.files, tmp_path / "arriving/attempt")
    for size in SIZES:
        assert Path(f"out/{size}").read_bytes() == Path(f"in/{size}").read_bytes()
    assert line.told == [(7, 0)], "reports are rare"
    assert list((tmp_path / "node/places").iterdir()) == []


def test_a_node_fetches_a_content_once_also_what_was_made_there(line: Direct) -> None:
    order, _ = send_out(line, copy_all)
    assert len(line.fetched) == len(order.inputs) == len(SIZES)
    Path("in/more").write_bytes(Path("in/65").read_bytes())
    Path("in/made").write_bytes(b"made there")
    line.fetched.clear()
    send_out(line, lambda: Path("checkpoint").write_bytes(b"its own"))
    assert len(line.fetched) == 1
    Path("in/its own").write_bytes(b"its own")
    send_out(line, copy_all)
    assert len(line.fetched) == 1


def test_a_piece_that_arrives_damaged_is_fetched_again_and_refused_the_second_time(
    line: Direct,
) -> None:
    line.damaged = 1
    send_out(line, copy_all)
    assert len(line.fetched) == len(SIZES) + 1
    Path("in/65").write_bytes(os.urandom(65))
    line.damaged = 4
    with pytest.raises(StudyError, match=r"^in/65: does not arrive on .* as it was sent"):
        send_out(line, copy_all)


def test_a_damaged_object_of_the_node_is_fetched_again(line: Direct, tmp_path: Path) -> None:
    order, _ = send_out(line, copy_all)
    largest = max(order.inputs, key=lambda entry: entry.size)
    path = tmp_path / "node/objects" / largest.sha256
    path.write_bytes(b"x" * largest.size)
    line.fetched.clear()
    Path("in/another").write_bytes(b"")
    send_out(line, copy_all)
    assert line.fetched == [largest.sha256]


def test_inputs_that_a_job_replaces_leave_the_nodes_objects_alone(
    line: Direct, tmp_path: Path
) -> None:
    Path("checkpoint").write_bytes(b"step 1")

    def work() -> None:
        with Path("checkpoint").open("r+b") as file:
            file.write(b"STEP 2")

    order, outcome = send_out(line, work)
    [entry] = [entry for entry in order.inputs if entry.path == "checkpoint"]
    assert (tmp_path / "node/objects" / entry.sha256).read_bytes() == b"step 1"
    put_in_place(order, outcome.files, tmp_path / "arriving/attempt")
    assert Path("checkpoint").read_bytes() == b"STEP 2"


def test_an_order_that_comes_again_to_a_node_goes_on_from_what_is_there(line: Direct) -> None:
    Path("checkpoint").write_bytes(b"step 1")

    def killed() -> None:
        Path("checkpoint").write_bytes(b"step 2")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        send_out(line, killed)
    found = []
    send_out(line, lambda: found.append(Path("checkpoint").read_bytes()))
    assert found == [b"step 2"]
    send_out(line, lambda: found.append(Path("checkpoint").read_bytes()))
    assert found[1:] == [b"step 1"], "an order that has ended leaves nothing"


def test_reports_are_told_once(line: Direct) -> None:
    line.depot.report(3, 10)
    line.depot.report(3, 20)
    assert line.depot.reports() == {3: 20}
    assert line.depot.reports() == {}


def test_a_file_that_changes_at_the_depot_does_not_arrive(line: Direct) -> None:
    entry = Hashes().entry(Path("in/65"))
    line.depot.offer([entry])
    Path("in/65").write_bytes(os.urandom(65))
    order = Order(Job(), 0, (Entry("in/65", entry.sha256, 65),), ("out",))
    with pytest.raises(StudyError, match="changed meanwhile"):
        carry_out(order, "a", line, lambda order, report: (None, 0.0))
