"""Labels of a study's own: spans of tokens, placed on the documents of its corpus."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sae_repro.concepts.labels import Labels, Rows
from sae_repro.errors import StudyError
from sae_repro.files import read_json
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.spans import Spans

Ints = npt.NDArray[np.int64]

NONE = -1  # the document of a row that is none: without text, of one token, or not read


@dataclass(frozen=True)
class _Placed:
    """Spans with their documents [N], `NONE` where the corpus has none, and their rows."""

    spans: Spans
    document: Ints
    first: Ints
    last: Ints
    """The rows of the bank from `first` to `last`, exclusive, carry the span's concept, [N] each"""

    @property
    def size(self) -> Ints:
        """Rows of the bank that each span marks."""
        return np.asarray(np.maximum(self.last - self.first, 0), dtype=np.int64)


def own_labels(rows: Rows, spans: Spans, corpus: TokenDocuments) -> Labels:
    """`user:concept` of each concept of `spans`.

    StudyError where a span lies beyond its document's end or in a document that does not exist, and
    where none marks a row at all.
    """
    placed = _place(rows, spans, corpus)
    size = placed.size
    if not size.any():
        raise StudyError(_nothing_marked(placed, corpus))
    names, concept = np.unique(np.array(spans.concept, dtype=object), return_inverse=True)
    row = np.repeat(placed.first - (np.cumsum(size) - size), size) + np.arange(size.sum())
    ones = np.ones(len(row), dtype=np.int32)
    shape = (len(rows.document), len(names))
    marks = csr_array((ones, (row, np.repeat(concept, size))), shape=shape)
    return Labels("user", [f"user:{name}" for name in names], marks.astype(bool))


def unmatched(rows: Rows, spans: Spans, corpus: TokenDocuments) -> Iterator[str]:
    """A line if some concepts mark no row, which then are none of the bank; StudyError as above."""
    labels = own_labels(rows, spans, corpus)
    marked = labels.labels.sum(axis=0) > 0
    without = [name for name, any_ in zip(labels.names, marked, strict=True) if not any_]
    if without:
        more = f" and {len(without) - 10} more" if len(without) > 10 else ""
        yield (
            f"{spans.what}: no held-out token carries {', '.join(without[:10])}{more}: left out; "
            "only labels in validation documents count"
        )


def _place(rows: Rows, spans: Spans, corpus: TokenDocuments) -> _Placed:
    row = corpus.documents["row"].to_numpy(np.int64)
    length = corpus.documents["length"].to_numpy(np.int64)
    near = np.minimum(np.searchsorted(row, spans.row), len(row) - 1)
    document = np.where(row[near] == spans.row, near, NONE)
    _check_places(spans, document, length, corpus)
    key = (rows.document << 32) | rows.position
    start, end = (
        np.where(document == NONE, 0, (document << 32) + place)
        for place in (spans.start, spans.end)
    )
    return _Placed(spans, document, np.searchsorted(key, start), np.searchsorted(key, end))


def _check_places(spans: Spans, document: Ints, length: Ints, corpus: TokenDocuments) -> None:
    beyond = np.flatnonzero((document != NONE) & (spans.end > length[document]))
    if len(beyond):
        n = int(beyond[0])
        raise StudyError(
            f"{spans.what}: row {n + 1}: end {spans.end[n]}, but document {spans.row[n]} has "
            f"{length[document[n]]} tokens; count them with the tokenizer in "
            f"{corpus.folder / 'tokenizer'}, without special ones ({len(beyond)} of {len(spans)} "
            "spans end beyond their document)"
        )
    read, all_read = _rows_read(corpus)
    if all_read:
        spans.check_documents(read)


def _rows_read(corpus: TokenDocuments) -> tuple[int, bool]:
    """(rows of the source that were read, whether those are all it has)."""
    summary = read_json(corpus.folder / "corpus.json")
    read = sum(summary["documents"].values()) + sum(summary["skipped"].values())
    source = summary["source"]
    return read, source["kind"] == "stories" or source["n_documents"] is None


def _nothing_marked(placed: _Placed, corpus: TokenDocuments) -> str:
    split = corpus.documents["split"].to_numpy(dtype=object)
    of_spans = np.where(placed.document == NONE, "", split[placed.document])
    read, _ = _rows_read(corpus)
    counts = {
        "in training documents": (of_spans == "train").sum(),
        "in calibration documents": (of_spans == "calibration").sum(),
        "in validation documents, at tokens that were not extracted "
        "(extract.n_validation_tokens)": (of_spans == "validation").sum(),
        "in rows without text or of one token": (
            (placed.document == NONE) & (placed.spans.row < read)
        ).sum(),
        "in rows beyond corpus.source.n_documents": (placed.spans.row >= read).sum(),
    }
    found = ", ".join(f"{count} {where}" for where, count in counts.items() if count)
    return (
        f"{placed.spans.what}: none of its {len(placed.spans)} spans marks a held-out token: "
        f"{found}. Only validation documents count: label those too (columns row and split of "
        f"{corpus.folder / 'documents.parquet'} name them; document is that row)"
    )
