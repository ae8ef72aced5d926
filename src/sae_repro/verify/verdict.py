"""The result of a comparison, and the line that says it."""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["data", "printed", "picture", "folder"]

SHOWN = 3
"""Places, files and causes that a line names; the others are counted."""


@dataclass(frozen=True)
class Difference:
    """One file or folder that differs: where in it, and by how much if it is a number."""

    file: str
    where: str
    """The first place that differs, with both values."""
    relative: float | None = None
    """Largest relative difference of its numbers; None where more than numbers differs."""
    numbers: int = 0
    """How many of its numbers differ."""
    largest: str = ""
    """The place of the largest relative difference, with both values."""
    kind: Kind = "data"
    """`printed`: rounded numbers in a text. `picture`: drawn from data that other files hold.
    `folder`: an artifact of which git has the hash alone."""


@dataclass
class Verdict:
    """The result of a comparison."""

    files: int = 0
    """Files of either side; of artifacts known by their hash, those in them."""
    size: int = 0
    differences: list[Difference] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    """What is likely behind the differences."""
    stale: list[str] = field(default_factory=list)
    """Stages that the next `dvc repro` would run again."""

    def of_kind(self, *kinds: str) -> list[Difference]:
        """The differences of these kinds."""
        return [d for d in self.differences if d.kind in kinds]

    def within(self, rtol: float) -> bool:
        """Whether all differences are numbers that agree to `rtol`.

        Pictures, and artifacts that only their hash is known of, follow from numbers compared
        elsewhere and don't count.
        """
        counted = self.of_kind("data", "printed")
        return all(d.relative is not None and d.relative <= rtol for d in counted)

    def summary(self, rtol: float, other: str = "the recorded study") -> str:
        """One line: identical, or what differs, by how much, and why."""
        end = f"; not up to date: {', '.join(self.stale)} (`dvc repro`)" if self.stale else ""
        if not self.differences:
            return f"identical to {other} ({_count(self.files, 'file')})" + end
        counted = self.of_kind("data", "printed")
        parts = [self._head(rtol, other), *self._worst(counted)]
        if folders := self.of_kind("folder"):
            parts.append(
                f"other bits: {', '.join(d.file for d in folders)} (of these git has only hashes)"
            )
        if pictures := self.of_kind("picture"):
            names = ", ".join(d.file for d in pictures[:SHOWN]) + _more(len(pictures))
            drawn = "these data" if counted else "the same data"
            within = ": not counted" if self.within(rtol) else ""
            parts.append(f"{_count(len(pictures), 'picture')} of {drawn}{within} ({names})")
        if self.causes:
            parts.append(
                "likely cause: " + ", ".join(self.causes[:SHOWN]) + _more(len(self.causes))
            )
        return "; ".join(parts) + end

    def size_of_differences(self) -> str:
        """`40 of 963 files differ, 12 numbers in them, by 1.6% at most`, of what counts."""
        counted = self.of_kind("data", "printed")
        if not counted:
            return "no number compared differs"
        numbers = sum(d.numbers for d in counted)
        sizes = [d.relative for d in counted if d.relative is not None]
        text = f"{len(counted):,} of {_count(self.files, 'file')} differ"
        if numbers:
            text += f", {_count(numbers, 'number')} in them"
        if sizes:
            text += f", by {percent(max(sizes))} at most"
        if others := len(counted) - len(sizes):
            text += f", {others} of the files in more than numbers"
        return text

    def _head(self, rtol: float, other: str) -> str:
        if not self.of_kind("data", "printed"):
            return f"no number differs from {other} ({_count(self.files, 'file')})"
        if self.within(rtol):
            return f"equal to {other} within {rtol:g}, not to the bit: {self.size_of_differences()}"
        return f"not {other} within {rtol:g}: {self.size_of_differences()}"

    def _worst(self, counted: list[Difference]) -> list[str]:
        """The largest differences; what is no number comes first, printed numbers last."""
        ranked = sorted(
            counted, key=lambda d: (d.kind == "printed", d.relative is not None, -(d.relative or 0))
        )
        places = [f"{d.file}: {d.largest or d.where}" for d in ranked[:SHOWN]]
        return ["most in " + "; ".join(places)] if places else []


def percent(relative: float) -> str:
    """A relative difference for a line of text."""
    return f"{relative:.1%}" if relative >= 1e-3 else f"{relative:.1e}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _more(number: int) -> str:
    return f" and {number - SHOWN} more" if number > SHOWN else ""
