"""Counts of what a text holds, in words for messages that ask for more of it."""

from collections.abc import Mapping
from dataclasses import dataclass

REASONS = {"empty": "without text", "one_token": "of one token"}
ONE_PER_LINE = "where each line is one, sed G FILE > NEW does so"


@dataclass(frozen=True)
class Found:
    """Counts of a source's documents."""

    documents: int
    """With text, and of two tokens or more."""
    skipped: Mapping[str, int]
    """Left out, by reason."""
    duplicates: int = 0
    """Of `documents`, those whose text an earlier one has."""
    paragraphs: bool = False
    """Whether documents are what stands between blank lines."""

    def __str__(self) -> str:
        return f"{_counted(self.documents, 'document')}{self.details()}"

    def details(self) -> str:
        """`; 40 of them copies of others, which share a split; 3 rows without text left out`."""
        copies = f"; {self.duplicates:,} of them copies of others, which share a split"
        return (copies if self.duplicates else "") + self.left_out()

    def left_out(self) -> str:
        """The second half of these; empty where every row is a document."""
        return "".join(
            f"; {_counted(count, 'row')} {REASONS[reason]} left out"
            for reason, count in self.skipped.items()
            if count
        )

    def advice(self) -> str:
        """What brings more documents."""
        if self.paragraphs and self.documents == 1:
            return (
                "the text has no blank line, so that it is one document: put one between documents "
                f"({ONE_PER_LINE}), or name a jsonl or csv file"
            )
        if 2 * self.duplicates > self.documents:
            return "give more documents that differ"
        if sum(self.skipped.values()) > self.documents:
            return "most rows hold no text: check corpus.source.columns, or give more documents"
        if self.paragraphs:
            return f"give more documents (a blank line ends one; {ONE_PER_LINE})"
        return "give more documents"


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
