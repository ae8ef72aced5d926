"""Recorded answers: one append-only file of JSON lines, under the hash of their questions.

Each answer is on disk before the next one is awaited. A crash can only truncate the last line: it
is dropped, and its question sent again, unless only its line end is missing, which editors leave
out, too. When writing ends, the lines are sorted by key, so that the bytes do not depend on the
order of the answers.

Only what a judge said is an answer. A line of an earlier version may hold a fault (`no JSON`,
`no choices`) in place of a text, or the text of a web page: it counts as missing, and is dropped
when its question is asked again.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from filelock import FileLock, Timeout

from sae_repro.errors import StudyError
from sae_repro.files import canonical_json, replacing
from sae_repro.judge.backends.replies import instead_of_answer
from sae_repro.judge.protocol import Answer
from sae_repro.judge.thoughts import spoken

_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Line:
    """A recorded line: the judge's words, or what an earlier version recorded in their place."""

    text: str | None
    fault: str | None = None
    cut: bool = False
    """Whether the words were cut off at max_tokens."""


def read_answers(path: Path) -> dict[str, Answer]:
    """The answers in `path` by key; none where there is no file.

    StudyError with the line that is damaged or contradicts another.
    """
    return _said(_lines(path))


def _lines(path: Path) -> dict[str, Line]:
    lines: dict[str, Line] = {}
    for number, key, line in _numbered(path):
        if lines.setdefault(key, line) != line:
            raise StudyError(
                f"{path}:{number}: a second, different answer to one question; delete one of the "
                f"lines with the key {key}"
            )
    return lines


def _said(lines: Mapping[str, Line]) -> dict[str, Answer]:
    return {
        key: Answer(line.text, line.cut)
        for key, line in lines.items()
        if line.text is not None and not_said(line) is None
    }


def lines_without_answer(path: Path, keys: Set[str]) -> list[tuple[int, str]]:
    """(number of the line, what it holds instead) of those for `keys` that hold no answer."""
    found = ((number, key, not_said(line)) for number, key, line in _numbered(path))
    return [(number, what) for number, key, what in found if what is not None and key in keys]


def not_said(line: Line) -> str | None:
    """What a recorded line holds in place of a judge's answer; None for an answer."""
    if line.text is None:
        return line.fault
    if line.cut:
        return None
    said = spoken(line.text)
    if said is None:
        return "reasoning without an answer"
    return instead_of_answer(said) if said.strip() else "an empty text"


def _numbered(path: Path) -> Iterator[tuple[int, str, Line]]:
    for number, line in enumerate(_whole_lines(path), start=1):
        if number == 1 and not line:
            continue  # a record without answers has one empty line
        yield number, *_parse(line, f"{path}:{number}")


def leave_record(path: Path) -> None:
    """Make the record in `path` where there is none: without answers it is one empty line.

    DVC expects the file, and prints a warning over one without a byte.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or not path.stat().st_size:
        with replacing(path) as temporary:
            temporary.write_bytes(b"\n")


def _whole_lines(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    *lines, rest = content.split(b"\n")
    try:
        json.loads(rest)
    except (ValueError, RecursionError):  # truncated by a crash, or nothing
        return lines
    return [*lines, rest]


def _parse(line: bytes, place: str) -> tuple[str, Line]:
    try:
        entry = json.loads(line)
        key, text, fault = entry["key"], entry["text"], entry.get("fault")
        cut = entry.get("cut", False)
        valid = (
            _KEY.fullmatch(key)
            and entry.keys() <= {"key", "text", "fault", "cut"}
            and type(cut) is bool
            # exactly one of the two
            and {type(text), type(fault)} == {str, type(None)}
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        valid = None
    if not valid:
        raise StudyError(
            f"{place}: not a recorded answer; restore the file (`dvc checkout`), or delete the "
            "line to request its answer again"
        )
    return key, Line(text, fault, cut)


def _line(key: str, answer: Answer) -> bytes:
    # ASCII: half a surrogate pair, which JSON can carry, is kept as it came
    cut = {"cut": True} if answer.cut else {}
    return (canonical_json({"key": key, "text": answer.text, **cut}) + "\n").encode()


class Recorder:
    """Appends answers to an open record; safe to share between threads."""

    def __init__(self, file: BinaryIO, answers: dict[str, Answer]) -> None:
        self._file = file
        self._answers = answers
        self._lock = Lock()

    @property
    def answers(self) -> Mapping[str, Answer]:
        """All recorded answers, by key."""
        return self._answers

    def add(self, key: str, answer: Answer) -> None:
        """Record an answer; on return it survives a crash."""
        with self._lock:
            self._file.write(_line(key, answer))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._answers[key] = answer


@contextmanager
def recording(path: Path) -> Iterator[Recorder]:
    """The record in `path`, open for one writer, others wait; sorted when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _only_writer(path):
        answers = _dropping_others(path)
        _drop_torn(path)
        with path.open("ab") as file:
            try:
                yield Recorder(file, answers)
            finally:
                _sort(path, answers)


def _drop_torn(path: Path) -> None:
    """Leave whole lines in `path`, each with its end: an answer that is added begins a line."""
    content = b"".join(line + b"\n" for line in _whole_lines(path))
    if path.is_file() and path.read_bytes() != content:
        with replacing(path) as temporary:
            temporary.write_bytes(content)


def _dropping_others(path: Path) -> dict[str, Answer]:
    """The answers in `path`, from which all other lines are dropped."""
    lines = _lines(path)
    answers = _said(lines)
    n_dropped = len(lines) - len(answers)
    if n_dropped:
        print(
            f"judge: {path}: {n_dropped} of {len(lines)} lines hold no answer of the judge, such "
            "as an error that an earlier version recorded: dropped, and asked again",
            file=sys.stderr,
        )
        _sort(path, answers)
    return answers


@contextmanager
def _only_writer(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"judge: another run is writing to {path}; waiting", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sort(path: Path, answers: Mapping[str, Answer]) -> None:
    # one empty line without answers: DVC warns of a file without a byte
    content = b"".join(_line(key, answers[key]) for key in sorted(answers)) or b"\n"
    if path.read_bytes() != content:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
