"""Given activations as documents: each row is a token, whose text its table may have."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sae_repro.corpus.classes import check_classes
from sae_repro.corpus.tokenizers import SPECIAL, word_level
from sae_repro.corpus.writing import Writer
from sae_repro.errors import StudyError, shown
from sae_repro.numerics.hashing import fingerprint
from sae_repro.params import ActivationsSource, Corpus
from sae_repro.pins import PinnedFile, pinned_activations
from sae_repro.readers.documents import FINGERPRINTS, LABEL, label_column
from sae_repro.readers.given import read_given
from sae_repro.readers.shards import RowFile
from sae_repro.tables import reader_of
from sae_repro.tables.cells import Cell, Column

UNNAMED = "row"
"""The text of rows that have none."""
KEY = "corpus.source.table"


@dataclass(frozen=True)
class _Table:
    """What a table says of the rows, a cell for each; columns that are not asked for are empty."""

    document: Sequence[Cell] = ()
    position: Sequence[Cell] = ()
    text: Sequence[Cell] = ()
    labels: Mapping[str, Sequence[Cell]] = field(default_factory=dict)
    """By the column's name."""

    def texts(self, rows: int) -> list[str]:
        """What contexts show of each row: its text, or else its classes."""
        if self.text or not self.labels:
            return [str(text or UNNAMED) for text in self.text] or [UNNAMED] * rows
        classes = zip(*self.labels.values(), strict=True)
        return [", ".join(str(label) for label in of if label) or UNNAMED for of in classes]


def write_given(
    corpus: Corpus, source: ActivationsSource, seed: int, folder: Path, *, study: Path
) -> None:
    """Write rows as documents, split by a hash of their activations; `study` holds params.yaml.

    Copies of a document share a split. StudyError where a table has not a row for each, or holds
    classes that are none.
    """
    given = read_given(source, study)
    table = _table(source, study, given.rows)
    texts = table.texts(given.rows)
    vocabulary = list(dict.fromkeys(texts))
    ids = {text: number for number, text in enumerate(vocabulary, len(SPECIAL))}
    names = [label_column(name, of=len(table.labels)) for name in table.labels]
    writer = Writer(folder, corpus, seed, names or [LABEL])
    places = RowFile(folder / "rows.npy", 1, np.int64)
    prints = RowFile(folder / FINGERPRINTS, 1, np.dtype("<u8"))
    for row_n in _documents(table, given.rows):
        content = given.take(row_n).tobytes()
        tokens = np.array([ids[texts[row]] for row in row_n], dtype=np.int32)
        classes = [labels[row_n[0]] for labels in table.labels.values()]
        writer.append(
            int(row_n[0]), tokens, content,
            *(None if label is None else str(label) for label in classes),
        )  # fmt: skip
        places.append(row_n[:, None])
        prints.append(np.frombuffer(fingerprint(content, 0)[:8], dtype="<u8")[:, None])
    places.close(flat=True)
    prints.close(flat=True)
    writer.close(word_level(vocabulary), source.name, Counter())


def _documents(table: _Table, rows: int) -> Iterator[npt.NDArray[np.int64]]:
    """The rows of each document, in the order in which documents first appear."""
    if not table.document:
        yield from np.arange(rows)[:, None]
        return
    of_document: dict[Cell, list[int]] = {}
    for row, document in enumerate(table.document):
        of_document.setdefault(document, []).append(row)
    for row_list in of_document.values():
        if table.position:
            row_list.sort(key=lambda row: int(table.position[row] or 0))
        yield np.array(row_list, dtype=np.int64)


def _table(source: ActivationsSource, study: Path, rows: int) -> _Table:
    """The cells of each column that the source names; StudyError where they don't fit the rows."""
    if source.table is None:
        return _Table()
    file = pinned_activations(source, study)[-1]
    asked = [
        ("document", source.table.document),
        ("position", source.table.position),
        ("text", source.table.text),
        *(("label", name) for name in source.table.labels),
    ]
    wanted = [
        Column(name, "whole" if what == "position" else "label", f"{KEY}.{what} = {shown(name)}")
        for what, name in asked
        if name is not None
    ]
    read = _read(file, wanted)
    if len(read) != rows:
        raise StudyError(
            f"{file.what}: {len(read):,} rows, and the activations have {rows:,}; give a row for "
            "each"
        )
    cells = iter([[row[n] for row in read] for n in range(len(wanted))])
    document, position, text = (next(cells) if name else [] for _, name in asked[:3])
    if None in document:
        raise StudyError(
            f"{file.what}: row {document.index(None)} names no document; name one for each row"
        )
    labels = dict(zip(source.table.labels, cells, strict=True))
    for name, of_rows in labels.items():
        check_classes(f"{KEY}.label = {shown(name)}", of_rows, document)
    return _Table(document, position, text, labels)


def _read(file: PinnedFile, wanted: Sequence[Column]) -> list[tuple[Cell, ...]]:
    with file.opened() as opened:
        return list(reader_of(file.name, file.key)(opened, file.what, wanted))
