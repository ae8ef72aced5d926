"""Reader of a study's own labels: spans of tokens that carry a concept."""

from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_repro.errors import Named, StudyError
from sae_repro.pins import PinnedFile
from sae_repro.tables import reader_of
from sae_repro.tables.cells import Column

Ints = npt.NDArray[np.int64]

KEY = "evaluate.concepts"
COLUMNS = tuple(
    Column(name, "label" if name == "concept" else "whole", f"{KEY}: the column {name}")
    for name in ("document", "start", "end", "concept")
)


@dataclass(frozen=True)
class Spans:
    """Spans of tokens, one per row of their file, in its order."""

    what: Named
    """The file's name in messages."""
    row: Ints
    """[N]: the document, by its row in the text's source: from 0, over all files in their order."""
    start: Ints
    end: Ints
    """Token positions in the document, end exclusive, [N] each."""
    concept: list[str]

    def __len__(self) -> int:
        return len(self.concept)

    def check_documents(self, rows: int) -> None:
        """StudyError where a document is none of the `rows` of the text's source."""
        beyond = np.flatnonzero(self.row >= rows)
        if len(beyond):
            first = int(beyond[0])
            raise StudyError(
                f"{self.what}: row {first + 1}: document {self.row[first]} does not exist: the "
                f"text has {rows:,} rows, numbered from 0 over all files of corpus.source in their "
                "order"
            )


def read_spans(file: PinnedFile) -> Spans:
    """The spans in a pinned parquet, csv, jsonl or json file.

    StudyError, with its row, for a cell of another kind, a span that is empty or starts before its
    document, and one without a concept; and for a file without rows.
    """
    if file.path.suffix.lower() == ".txt":
        raise StudyError(f"{file.what}: txt has no columns; write parquet, csv or jsonl")
    read = reader_of(file.name, file.key)
    numbers = [array("q"), array("q"), array("q")]
    concepts: list[str] = []
    with file.opened() as opened:
        for number, cells in enumerate(read(opened, file.what, COLUMNS), 1):
            document, start, end, concept = cells
            assert isinstance(document, int) and isinstance(start, int) and isinstance(end, int)
            if document < 0 or start < 0 or end <= start:
                raise StudyError(
                    f"{file.what}: row {number}: document {document}, start {start}, end {end}: "
                    "document and start must be ≥ 0, and start before end, which is exclusive"
                )
            if not concept:
                raise StudyError(f"{file.what}: row {number} names no concept")
            for column, value in zip(numbers, (document, start, end), strict=True):
                column.append(value)
            concepts.append(str(concept))
    if not concepts:
        raise StudyError(f"{file.what}: no labels in it; delete {KEY}, or label some tokens")
    row, start_n, end_n = (np.array(column, dtype=np.int64) for column in numbers)
    return Spans(file.what, row, start_n, end_n, concepts)
