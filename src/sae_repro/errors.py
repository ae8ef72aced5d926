"""StudyError: the exception for faults of a study, not of the program; and text in messages."""

import io
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""What a terminal obeys instead of showing it, as part of a regular expression's [class]: control
characters, further ends of lines, and overrides of a text's direction."""

_UNPRINTABLE = re.compile(rf"[{UNPRINTABLE}\ud800-\udfff]")


class StudyError(Exception):
    """A fault that the user can repair: the message names it, its place, and what to do.

    Stages and the command line print it as it stands, without a traceback, and exit with 2. As
    text, it has no character but ends of lines that a terminal would obey: see `printable`.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """`text` with its lines, all else that a terminal obeys escaped: `\\x1b`, `\\u202e`."""
    return "\n".join(map(one_line, text.split("\n")))


def one_line(text: str) -> str:
    """`text` as what one line of a terminal shows: ends of lines escaped as well."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def print_any_text() -> None:
    """Have stdout escape what its encoding can't spell, as stderr does, instead of failing.

    Where the locale is not of UTF-8, a `×` in a line would end a stage.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest of the `known` words; empty where none is near."""
    near = get_close_matches(word, sorted(set(known)), n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


@dataclass(frozen=True)
class Named:
    """A file as messages name it: `corpus.source.files: news.csv`."""

    key: str
    """Where params.yaml names it."""
    name: str
    """How params.yaml names it, fit to be shown."""

    def __str__(self) -> str:
        return f"{self.key}: {self.name}"


def shown(value: Any, most: int = 60) -> str:
    """`value` for a line of a message: short, spelled as YAML does, what can't be seen escaped."""
    match value:
        case str():
            text = value
        case None | bool():
            text = "null" if value is None else str(value).lower()
        case _:
            text = repr(value)
    text = text[: most + 1]
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return line if len(line) <= most else line[: most - 1] + "…"
