"""Changes between two snapshots: numbers beyond their intervals, claims, verdict, cells."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from sae_repro.revisions.numbers import Number, numbers, parsed, rows
from sae_repro.revisions.snapshot import Snapshot

ROUNDING = 1e-9
"""Numbers below it are what rounding left of 0, however narrow their interval."""
_DECIMALS = re.compile(r"-?\d+\.\d+(e-?\d+)?|\[[^\]]*\]")
_END = re.compile(r"(?<=[.?])\s+|;\s+(?=at L0)")


@dataclass(frozen=True)
class Moved:
    """A number whose 95 % intervals before and after have nothing in common."""

    subject: str
    metric: str
    was: Number
    now: Number

    @property
    def far(self) -> float:
        """How far it moved, in sums of the intervals' half widths."""
        half = sum((number.high or 0) - (number.low or 0) for number in (self.was, self.now)) / 2
        return abs(self.now.value - self.was.value) / half if half > 0 else math.inf

    @property
    def one_seed(self) -> bool:
        """Whether a single seed is behind it, on one side at least: another seed may turn it."""
        return 1 in (self.was.seeds, self.now.seeds)


@dataclass(frozen=True)
class Turned:
    """A claim whose verdict, or whose bound, is another one; None where it was or is not there."""

    claim: str
    was: Mapping[str, str] | None
    now: Mapping[str, str] | None


@dataclass(frozen=True)
class Sentences:
    """Sentences of a text that were replaced, by those that replace them."""

    was: tuple[str, ...]
    now: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """All that differs in the results of two snapshots."""

    moved: list[Moved]
    within: int
    """Numbers whose value changed and whose intervals overlap."""
    without_interval: int
    """Numbers that changed and have no interval, on one side at least."""
    compared: int
    """Numbers with an interval on both sides."""
    claims: list[Turned]
    verdict: list[Sentences]
    findings: list[Sentences]
    cells_added: list[str]
    cells_removed: list[str]
    statuses: list[tuple[str, str, str]]
    """(cell, status before, status now) where it changed: `ok`, or why it has no numbers."""

    def __bool__(self) -> bool:
        """Whether there is anything that a reader of the results must know."""
        return bool(
            self.moved or self.claims or self.verdict or self.findings or self.cells_added
            or self.cells_removed or self.statuses
        )  # fmt: skip


def changes(before: Snapshot, after: Snapshot) -> Changes:
    """Compare the results of two snapshots; StudyError where a file of one can't be read."""
    was, now = (numbers(s.folder / "reports") for s in (before, after))
    common = [place for place in was if place in now]
    differ = [place for place in common if was[place].value != now[place].value]
    bounded = {p for p in common if was[p].low is not None and now[p].low is not None}
    moved = [Moved(*p, was[p], now[p]) for p in differ if p in bounded and _apart(was[p], now[p])]
    cells = [_cells(s.folder) for s in (before, after)]
    return Changes(
        moved=moved,
        within=len(bounded.intersection(differ)) - len(moved),
        without_interval=len(set(differ) - bounded),
        compared=len(bounded),
        claims=_claims(before.folder, after.folder),
        verdict=_sentences(before.folder, after.folder, "verdict.md"),
        findings=_sentences(before.folder, after.folder, "findings.md"),
        cells_added=[cell for cell in cells[1] if cell not in cells[0]],
        cells_removed=[cell for cell in cells[0] if cell not in cells[1]],
        statuses=[(cell, cells[0][cell], status) for cell, status in cells[1].items()
                  if cells[0].get(cell, status) != status],
    )  # fmt: skip


def _apart(a: Number, b: Number) -> bool:
    if max(abs(a.value), abs(b.value)) < ROUNDING:
        return False
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
    return a.high < b.low or b.high < a.low


def _cells(folder: Path) -> dict[str, str]:
    table = rows(folder / "reports/tables/cells.csv")
    return {row["cell"]: row.get("status", "") for row in table if "cell" in row}


def _claims(before: Path, after: Path) -> list[Turned]:
    was, now = (
        {row["claim"]: row for row in rows(f / "reports/tables/claims.csv") if "claim" in row}
        for f in (before, after)
    )
    return [
        Turned(claim, was.get(claim), now.get(claim))
        for claim in [*now, *(claim for claim in was if claim not in now)]
        if _said(was.get(claim)) != _said(now.get(claim))
    ]


def _said(row: Mapping[str, str] | None) -> tuple[str | None, ...]:
    return () if row is None else (row.get("verdict"), row.get("expected"))


def value_of(claim: Mapping[str, str]) -> Number | None:
    """A claim's number; None where it has none."""
    value, low, high = (parsed(claim.get(key)) for key in ("value", "low", "high"))
    return None if value is None else Number(value, low, high)


def _sentences(before: Path, after: Path, name: str) -> list[Sentences]:
    """The sentences that say something else, not counting a change of their decimals alone."""
    was, now = (_read_sentences(folder / "reports/tables" / name) for folder in (before, after))
    matcher = SequenceMatcher(
        None, [_DECIMALS.sub("#", s) for s in was], [_DECIMALS.sub("#", s) for s in now],
        autojunk=False,
    )  # fmt: skip
    return [
        Sentences(tuple(was[a:b]), tuple(now[c:d]))
        for tag, a, b, c, d in matcher.get_opcodes()
        if tag != "equal"
    ]


def _read_sentences(path: Path) -> list[str]:
    """The sentences of a text up to its first table, its headings and captions left out.

    The verdict's parts between semicolons are sentences of their own: one for each L0.
    """
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    paragraphs = [p for p in text.split("\n\n## ")[0].split("\n") if p.startswith(("**", "- "))]
    found = []
    for paragraph in paragraphs:
        if paragraph.startswith("- "):
            found.append(paragraph.removeprefix("- ").strip())
            continue
        question, mark, rest = paragraph.partition("?**")
        topic = f"{question.strip('*')}{mark.rstrip('*')} " if mark else ""
        parts = _END.split(rest.strip() if mark else paragraph)
        found += [topic + part.replace("**", "").strip() for part in parts if part]
    return found
