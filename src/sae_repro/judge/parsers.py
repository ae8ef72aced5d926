"""Answers, read strictly: what was asked for, or None. No parser raises on any text."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sae_repro.judge.questions import Answer

T = TypeVar("T")
POLYSEMANTIC = "POLYSEMANTIC"
LONGEST_LABEL = 100
LONGEST_EXPLANATION = 200
_LONGEST_ANSWER = 100_000
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co"})
_QUOTES = "\"'“”‘’"


@dataclass(frozen=True)
class Counts:
    """What became of the answers; the three add up to the questions."""

    parsed: int
    unparsable: int
    faults: int
    """Answers without a text: broken JSON, no choices."""


def read(
    answers: Sequence[Answer], parse: Callable[[str], T | None]
) -> tuple[list[T | None], Counts]:
    """The parsed answers in order, None for each that says nothing usable, and the counts."""
    values = [None if answer.text is None else parse(answer.text) for answer in answers]
    faults = sum(answer.text is None for answer in answers)
    parsed = sum(value is not None for value in values)
    return values, Counts(parsed, len(values) - parsed - faults, faults)


def parse_label(text: str) -> str | None:
    """A label of one line, or POLYSEMANTIC; None where a label speaks of being polysemantic."""
    line = _one_line(text)
    if line is None:
        return None
    # what stands in quotes as a whole, and the end of a sentence; not the quote of `the token "`
    line = line.strip(_QUOTES + " .") if line[:1] in tuple(_QUOTES) else line
    line = re.sub(r"(?<=\w)\.$", "", line)
    if line.upper() == POLYSEMANTIC:
        return POLYSEMANTIC
    # "POLYSEMANTIC: verbs and dates" has one foot in either answer
    if not re.search(r"\w", line) or len(line) > LONGEST_LABEL or POLYSEMANTIC in line.upper():
        return None
    return line


def parse_explanation(text: str) -> str | None:
    """A description of one line and at most 200 characters, free of markup."""
    line = _one_line(text)
    return line if line and len(line) <= LONGEST_EXPLANATION else None


def parse_flags(text: str, n: int) -> list[int] | None:
    """`n` zeros and ones, as `[1, 0, 1]` or `1, 0, 1`."""
    return _numbers(text, n, 1)


def parse_simulation(text: str, n: int) -> list[int] | None:
    """`n` whole numbers from 0 to 10, one per token, in the same forms."""
    return _numbers(text, n, 10)


def parse_specificity(text: str) -> int | None:
    """One digit, 0 to 3."""
    return {"0": 0, "1": 1, "2": 2, "3": 3}.get(text.strip())


def _numbers(text: str, n: int, largest: int) -> list[int] | None:
    if len(text) > _LONGEST_ANSWER:
        return None
    inner = text.strip()
    if inner[:1] == "[" and inner[-1:] == "]":
        inner = inner[1:-1]
    # a table, for int() takes "٣", "1_0" and "+1", too
    allowed = {str(number): number for number in range(largest + 1)}
    found = [allowed.get(part.strip()) for part in inner.split(",")]
    values = [number for number in found if number is not None]
    return values if len(values) == len(found) == n else None


def _one_line(text: str) -> str | None:
    """The only line of `text`, without tags, marks of emphasis and characters that don't show."""
    if len(text) > _LONGEST_ANSWER:
        return None
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if len(lines) != 1:
        return None
    visible = "".join(c for c in lines[0] if unicodedata.category(c) not in _UNSEEN)
    untagged = re.sub(r"<[^<>]*>", "", visible)
    plain = re.sub(r"[<>`*#]", "", untagged)
    return " ".join(plain.split())
