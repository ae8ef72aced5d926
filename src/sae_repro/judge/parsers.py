"""Strict parsers of answers: a value of the requested form, or None. None raises on any text.

Reasoning in tags (`<think>…</think>`) before an answer and a code fence around it are left out.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sae_repro.judge.protocol import Answer
from sae_repro.judge.thoughts import spoken

T = TypeVar("T")
POLYSEMANTIC = "POLYSEMANTIC"
LONGEST_LABEL = 100
LONGEST_EXPLANATION = 200
_LONGEST_ANSWER = 100_000
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co"})
_QUOTES = "\"'“”‘’"


@dataclass(frozen=True)
class Counts:
    """Numbers of answers by outcome; the two add up to the questions."""

    parsed: int
    unparsable: int


def read(
    answers: Sequence[Answer], parse: Callable[[str], T | None]
) -> tuple[list[T | None], Counts]:
    """The parsed answers in order, None for each unparsable one, and the counts."""
    return read_each(answers, [parse] * len(answers))


def read_each(
    answers: Sequence[Answer], parsers: Sequence[Callable[[str], T | None]]
) -> tuple[list[T | None], Counts]:
    """As `read`, with a parser per answer."""
    values = [_parsed(answer, parse) for answer, parse in zip(answers, parsers, strict=True)]
    parsed = sum(value is not None for value in values)
    return values, Counts(parsed, len(values) - parsed)


def _parsed(answer: Answer, parse: Callable[[str], T | None]) -> T | None:
    said = None if answer.cut else spoken(answer.text)
    return None if said is None else parse(said)


def parse_label(text: str) -> str | None:
    """A label of one line, or POLYSEMANTIC; None where the word is only a part of the line."""
    line = _one_line(text)
    if line is None:
        return None
    # quotes around the whole line, and a full stop; not the quote of `the token "`
    line = line.strip(_QUOTES + " .") if line[:1] in tuple(_QUOTES) else line
    line = re.sub(r"(?<=\w)\.$", "", line)
    if line.upper() == POLYSEMANTIC:
        return POLYSEMANTIC
    # "POLYSEMANTIC: verbs and dates" gives both answers
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
    return {"0": 0, "1": 1, "2": 2, "3": 3}.get(_unfenced(text))


def _numbers(text: str, n: int, largest: int) -> list[int] | None:
    if len(text) > _LONGEST_ANSWER:
        return None
    inner = _unfenced(text)
    if inner[:1] == "[" and inner[-1:] == "]":
        inner = inner[1:-1]
    # a table: int() accepts "٣", "1_0" and "+1", too
    allowed = {str(number): number for number in range(largest + 1)}
    entries = [allowed.get(part.strip()) for part in inner.split(",")]
    values = [number for number in entries if number is not None]
    return values if len(values) == len(entries) == n else None


def _one_line(text: str) -> str | None:
    """The only line of `text`, without tags, emphasis and invisible characters; None if several."""
    if len(text) > _LONGEST_ANSWER:
        return None
    lines = [line for line in _unfenced(text).splitlines() if line.strip()]
    if len(lines) != 1:
        return None
    visible = "".join(c for c in lines[0] if unicodedata.category(c) not in _INVISIBLE)
    untagged = re.sub(r"<[^<>]*>", "", visible)
    plain = re.sub(r"[<>`*#]", "", untagged)
    return " ".join(plain.split())


def _unfenced(text: str) -> str:
    """`text` without white space and without the code fence around all of it."""
    inner = text.strip()
    mark = inner[:3]
    if mark not in ("```", "~~~") or not inner.endswith(mark) or inner.count(mark) != 2:
        return inner
    return re.sub(r"\A[\w+-]*[ \t]*\r?\n", "", inner[3:-3]).strip()
