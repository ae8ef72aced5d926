"""Recorded answers: one append-only file of JSON lines, under the hash of their questions.

Each answer is on disk before the next one is awaited. A crash can only truncate the last line,
which then has no line end: it is dropped, and its question sent again. When writing ends, the
lines are sorted by key, so that the bytes do not depend on the order of the answers.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from filelock import FileLock, Timeout

from sae_repro.errors import StudyError
from sae_repro.files import canonical_json, replacing
from sae_repro.judge.protocol import Answer

_KEY = re.compile(r"[0-9a-f]{64}")


def read_record(path: Path) -> dict[str, Answer]:
    """The answers in `path` by key; none where there is no file.

    StudyError with the line that is damaged or contradicts another.
    """
    answers: dict[str, Answer] = {}
    for number, line in enumerate(_whole_lines(path), start=1):
        if number == 1 and not line:
            continue  # a record without answers has one empty line
        key, answer = _parse(line, f"{path}:{number}")
        if answers.setdefault(key, answer) != answer:
            raise StudyError(
                f"{path}:{number}: a second, different answer to one question; delete one of the "
                f"lines with the key {key}"
            )
    return answers


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
    # a crash truncated whatever follows the last line end
    return content.split(b"\n")[:-1]


def _parse(line: bytes, place: str) -> tuple[str, Answer]:
    try:
        entry = json.loads(line)
        key, text, fault = entry["key"], entry["text"], entry["fault"]
        valid = (
            _KEY.fullmatch(key)
            and len(entry) == 3
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
    return key, Answer(text, fault)


def _line(key: str, answer: Answer) -> bytes:
    # ASCII: half a surrogate pair, which JSON can carry, is kept as it came
    return (
        canonical_json({"key": key, "text": answer.text, "fault": answer.fault}) + "\n"
    ).encode()


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
        answers = read_record(path)
        with path.open("ab") as file:
            file.truncate(sum(len(line) + 1 for line in _whole_lines(path)))
            try:
                yield Recorder(file, answers)
            finally:
                _sort(path, answers)


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
    content = b"".join(_line(key, answers[key]) for key in sorted(answers))
    if path.read_bytes() != content:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
