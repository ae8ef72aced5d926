"""Rows for a language model: parts of documents, BOS in front, padded on the right.

The first position of a row is masked out whatever stands there: models make it an attention sink
(Xiao et al. 2024, arXiv 2309.17453), with activations that are no other token's.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_repro.readers.documents import TokenDocuments


@dataclass(frozen=True)
class Windows:
    """A batch of rows. Row position p is document position offset + p − (1 if there is a BOS)."""

    tokens: npt.NDArray[np.int64]
    """[n, context], right-padded."""
    mask: npt.NDArray[np.bool_]
    """[n, context]: a real token, not the row's first, no padding, no special id in a document."""
    length: npt.NDArray[np.int64]
    """[n]: tokens in the row, BOS included."""
    document: npt.NDArray[np.int64]
    """[n]: number of the document."""
    offset: npt.NDArray[np.int64]
    """[n]: position in the document of the row's first document token."""

    def masked(self, mask: npt.NDArray[np.bool_]) -> "Windows":
        """The rows with `mask` [n, context] for theirs; those of which nothing is left drop out."""
        used = mask.any(axis=1)
        return Windows(
            tokens=self.tokens[used],
            mask=mask[used],
            length=self.length[used],
            document=self.document[used],
            offset=self.offset[used],
        )


def windows(
    documents: TokenDocuments,
    which: npt.NDArray[np.int64],
    *,
    context: int,
    bos: int | None,
    special: Collection[int],
    pad: int,
    batch_size: int,
) -> Iterator[Windows]:
    """Rows of at most `context` tokens over the documents `which`, in order.

    A row holds one document; a longer document goes on in the next row, behind another BOS.
    Padding is masked by length, never by id (GPT-2 pads with its BOS); `special` ids that stand
    inside a document are masked out too.
    """
    document, offset, size = _rows(documents, which, context - (bos is not None))
    starts = documents.documents["start"].to_numpy()[document] + offset
    first = int(bos is not None)
    for begin in range(0, len(document), batch_size):
        rows = slice(begin, begin + batch_size)
        n = size[rows]
        tokens = np.full((len(n), context), pad, dtype=np.int64)
        if bos is not None:
            tokens[:, 0] = bos
        row = np.repeat(np.arange(len(n)), n)
        column = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        ids = documents.tokens[np.repeat(starts[rows], n) + column]
        tokens[row, column + first] = ids
        mask = np.zeros(tokens.shape, dtype=bool)
        mask[row, column + first] = True
        mask[:, 0] = False
        for unwanted in special:  # a few: faster than np.isin
            mask[tokens == unwanted] = False
        yield Windows(tokens, mask, n + first, document[rows], offset[rows])


def _rows(
    documents: TokenDocuments, which: npt.NDArray[np.int64], room: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Per row: its document, its offset in it, its number of document tokens."""
    length = documents.documents["length"].to_numpy()[which].astype(np.int64)
    per = -(-length // room)
    document = np.repeat(which, per)
    part = np.arange(per.sum()) - np.repeat(np.cumsum(per) - per, per)
    offset = part * room
    return document, offset, np.minimum(room, np.repeat(length, per) - offset)
