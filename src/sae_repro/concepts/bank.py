"""The concept bank: the concepts that each validation token carries, without a judge.

Concepts and thresholds are chosen on the documents of the fit half and scored on those of the test
half (see `halves`), so that neighbouring windows of one document never stand on both sides.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array, hstack

from sae_repro.concepts.halves import fit_documents
from sae_repro.concepts.labels import Labels, Rows, story_labels, token_identity
from sae_repro.concepts.own_labels import own_labels, unmatched
from sae_repro.concepts.surface import document_labels, surface_labels
from sae_repro.errors import StudyError
from sae_repro.pins import PinnedFile
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import DOCUMENT, POSITION, TOKEN, row_key
from sae_repro.readers.spans import read_spans

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LEAST = 50  # positives, and negatives, that a concept needs in either half


@dataclass(frozen=True)
class ConceptBank:
    """Concepts of the validation rows, which stand by document and position in it."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    """Per concept: token, class, state, previous, next, look, frequency, position, document or
    user."""
    labels: csc_array
    """Bool [N, C], sparse: a token carries some ten of many hundred concepts."""
    document: Ints
    position: Ints
    token: Ints
    fit: Mask
    """[N]: whether the row's document is in the fit half; the others are the test half."""
    left_out: dict[str, int]
    """Per kind, the concepts with fewer than `LEAST` positives or negatives in a half."""

    def rows(self, index: npt.NDArray[Any]) -> Ints:
        """The rows of the bank of `index` [n, ≥ 2], as the store gives it; StudyError if none."""
        key = row_key(self.document, self.position)
        target = row_key(index[:, DOCUMENT], index[:, POSITION])
        place = np.minimum(np.searchsorted(key, target), len(key) - 1)
        if not np.array_equal(key[place], target):
            raise StudyError(
                "evaluate: an activation's token is not in the concept bank; both must be read "
                "from one artifacts/extract"
            )
        return place.astype(np.int64)


def load_bank(
    folder: Path,
    index: npt.NDArray[Any],
    seed: int,
    spans: PinnedFile | None = None,
    *,
    surface: bool = True,
) -> ConceptBank:
    """The bank of the rows `index` [N, 3] over the corpus in `folder`; `spans`: a user's labels.

    Without `surface` it lacks what follows from a token's text, place and frequency, which random
    weights keep: token identity and the concepts of `surface`. The grammar's labels, the class of
    the document and a user's labels stay; StudyError where there are none. So they do where
    activations were given, whatever `surface`: what a table shows of a row is no token.
    """
    corpus = TokenDocuments.load(folder)
    surface &= not corpus.given
    rows = _rows(corpus, index)
    parts = [token_identity(rows, corpus)] if surface else []
    if _has_story_labels(folder):
        parts += story_labels(rows, folder)
    else:
        parts += surface_labels(rows, corpus) if surface else ()
        parts += document_labels(rows, corpus)
    if spans is not None:
        parts.append(own_labels(rows, read_spans(spans), corpus))
    if not parts:
        raise StudyError(_NOTHING_BUT_SURFACE)
    return bank_of(parts, rows, fit_documents(corpus, seed)[rows.document])


_NOTHING_BUT_SURFACE = (
    "evaluate.surface: false leaves no concept: the text has neither a class per document "
    "(corpus.source.label) nor labels of your own (evaluate.concepts); give one of them, or delete "
    "evaluate.surface"
)


def check_without_surface(folder: Path, spans: PinnedFile | None) -> None:
    """StudyError where a bank without surface concepts of the corpus in `folder` would be empty."""
    labelled = spans is not None or _has_story_labels(folder)
    if not labelled and not TokenDocuments.load(folder).labels:
        raise StudyError(_NOTHING_BUT_SURFACE)


def _has_story_labels(folder: Path) -> bool:
    return (folder / "concepts.json").is_file()


def check_spans(folder: Path, index: npt.NDArray[Any], spans: PinnedFile) -> Iterator[str]:
    """Check a user's labels against the corpus in `folder` and the rows `index`; lines to show.

    StudyError where they don't fit, before any SAE is measured.
    """
    corpus = TokenDocuments.load(folder)
    yield from unmatched(_rows(corpus, index), read_spans(spans), corpus)


def bank_of(parts: list[Labels], rows: Rows, fit: Mask) -> ConceptBank:
    """The bank of the concepts of `parts` that are frequent enough in both halves."""
    labels = csc_array(hstack([part.labels for part in parts], format="csc"))
    names = [name for part in parts for name in part.names]
    kinds = [part.kind for part in parts for _ in part.names]
    keep = frequent_enough(labels, fit)
    chosen = np.flatnonzero(keep)
    return ConceptBank(
        names=tuple(names[i] for i in chosen),
        kinds=tuple(kinds[i] for i in chosen),
        labels=labels[:, chosen],
        document=rows.document,
        position=rows.position,
        token=rows.token,
        fit=fit,
        left_out=dict(Counter(kinds[i] for i in np.flatnonzero(~keep))),
    )


def frequent_enough(labels: csc_array, fit: Mask) -> Mask:
    """Mask of `labels`' [N, C] concepts with `LEAST` positives and negatives in both halves."""
    keep = np.ones(labels.shape[1], dtype=bool)
    for half in (fit, ~fit):
        positives = labels.T.astype(np.int64) @ half.astype(np.int64)
        keep &= (positives >= LEAST) & (half.sum() - positives >= LEAST)
    return keep


def _rows(corpus: TokenDocuments, index: npt.NDArray[Any]) -> Rows:
    order = np.argsort(row_key(index[:, DOCUMENT], index[:, POSITION]), kind="stable")
    document, position, token = (
        index[order, column].astype(np.int64) for column in (DOCUMENT, POSITION, TOKEN)
    )
    return Rows(
        document=document,
        position=position,
        token=token,
        start=corpus.documents["start"].to_numpy(np.int64)[document],
        length=corpus.documents["length"].to_numpy(np.int64)[document],
    )
