"""Given activations as documents: each row is a token, whose text its table may have."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sae_repro.corpus.tokenizers import SPECIAL, word_level
from sae_repro.corpus.writing import Writer
from sae_repro.errors import StudyError, shown
from sae_repro.params import ActivationsSource, Corpus
from sae_repro.pins import pinned_activations
from sae_repro.readers.given import read_given
from sae_repro.readers.shards import RowFile
from sae_repro.tables import reader_of
from sae_repro.tables.cells import Cell, Column

UNNAMED = "row"
"""The text of rows that have none."""


def write_given(
    corpus: Corpus, source: ActivationsSource, seed: int, folder: Path, *, study: Path
) -> None:
    """Write rows as documents, split by a hash of their activations; `study` holds params.yaml.

    Copies of a document share a split. StudyError where a table has not a row for each.
    """
    given = read_given(source, study)
    columns = _table(source, study, given.rows)
    texts = columns.get("text") or columns.get("label") or []
    vocabulary = list(dict.fromkeys(str(text or UNNAMED) for text in texts)) or [UNNAMED]
    ids = {text: number for number, text in enumerate(vocabulary, len(SPECIAL))}
    labels = columns.get("label")
    writer = Writer(folder, corpus, seed)
    places = RowFile(folder / "rows.npy", 1, np.int64)
    for row_n in _documents(columns, given.rows):
        content = given.take(row_n).tobytes()
        tokens = [ids[str(texts[row] or UNNAMED) if texts else UNNAMED] for row in row_n]
        label = labels and labels[row_n[0]]
        writer.append(
            int(row_n[0]), np.array(tokens, dtype=np.int32), content,
            None if label is None else str(label),
        )  # fmt: skip
        places.append(row_n[:, None])
    places.close(flat=True)
    writer.close(word_level(vocabulary), source.name, Counter())


def _documents(columns: dict[str, list[Cell]], rows: int) -> Iterator[npt.NDArray[np.int64]]:
    """The rows of each document, in the order in which documents first appear."""
    if "document" not in columns:
        yield from np.arange(rows)[:, None]
        return
    of_document: dict[Cell, list[int]] = {}
    for row, document in enumerate(columns["document"]):
        of_document.setdefault(document, []).append(row)
    position = columns.get("position")
    for row_list in of_document.values():
        if position is not None:
            row_list.sort(key=lambda row: int(position[row] or 0))
        yield np.array(row_list, dtype=np.int64)


def _table(source: ActivationsSource, study: Path, rows: int) -> dict[str, list[Cell]]:
    """The cells of each column that the source names, by what it is."""
    if source.table is None:
        return {}
    file = pinned_activations(source, study)[-1]
    asked = {
        what: name
        for what in ("document", "position", "text", "label")
        if (name := getattr(source.table, what)) is not None
    }
    wanted = [
        Column(
            name,
            "whole" if what == "position" else "label",
            f"corpus.source.table.{what} = {shown(name)}",
        )
        for what, name in asked.items()
    ]
    with file.opened() as opened:
        read = list(reader_of(file.name, file.key)(opened, file.what, wanted))
    if len(read) != rows:
        raise StudyError(
            f"{file.what}: {len(read):,} rows, and the activations have {rows:,}; give a row for "
            "each"
        )
    columns = {what: [row[n] for row in read] for n, what in enumerate(asked)}
    if None in columns["document"]:
        raise StudyError(
            f"{file.what}: row {columns['document'].index(None)} names no document; name one for "
            "each row"
        )
    return columns
