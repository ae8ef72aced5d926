"""txt: a document is what stands between blank lines."""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from sae_repro.errors import Named
from sae_repro.tables.cells import Column
from sae_repro.tables.utf8 import decoded, without_nul


def paragraphs(file: BinaryIO, what: Named, columns: Sequence[Column]) -> Iterator[tuple[str]]:
    """Each document as the one cell of a row; a txt file has no columns."""
    assert len(columns) == 1, "a txt file has no columns"
    with decoded(file, what, newline="\n") as text:
        lines: list[str] = []
        for line in without_nul(text, what):
            if line.strip():
                lines.append(line)
            elif lines:
                yield ("".join(lines).rstrip("\r\n"),)
                lines = []
        if lines:
            yield ("".join(lines).rstrip("\r\n"),)
