"""StudyError: the exception for faults of a study, not of the program; and advice in messages."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


class StudyError(Exception):
    """A fault that the user can repair: the message names it, its place, and what to do.

    Stages and the command line print it as it stands, without a traceback, and exit with 2.
    """


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


def shown(text: str, most: int = 60) -> str:
    """`text` for a line of a message: short, and its control characters escaped."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return line if len(line) <= most else line[: most - 1] + "…"
