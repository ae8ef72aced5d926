"""The held-out tokens as a judge sees them: in order, with their windows, on one of two sides."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.judge.contexts import Context
from sae_repro.judge.documents import side_of
from sae_repro.readers.activations import DOCUMENT, POSITION, TOKEN
from sae_repro.readers.documents import TokenDocuments

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LOST = "\ufffd"  # where a token ends within a character


@dataclass(frozen=True)
class Rows:
    """N tokens with activations, by document, then by position in it; all arrays are [N]."""

    document: Ints
    position: Ints
    token: Ints
    order: Ints
    """Where each row stands among the activations as they are stored."""
    text: Ints
    """The row's document by content: copies share a number."""
    explain: Mask
    """Whether the row's document is there to explain; the others are there to score."""
    first: Ints
    last: Ints
    """The row's window: rows first … last − 1, all of its document."""

    def find(self, document: npt.NDArray[Any], position: npt.NDArray[Any]) -> Ints:
        """The rows at these places, each of which must be one."""
        found = np.searchsorted(
            _key(self.document, self.position), _key(document, position)
        ).astype(np.int64)
        assert np.array_equal(self.position[found], position)
        return found


def rows_of(index: npt.NDArray[Any], corpus: TokenDocuments, around: int, seed: int) -> Rows:
    """The rows of `index` [N, 3] as the store gives it; windows reach `around` rows to both sides.

    A document's side follows from a hash of all its tokens, so that copies share it.
    """
    order = np.argsort(_key(index[:, DOCUMENT], index[:, POSITION]), kind="stable")
    document, position, token = (
        index[order, column].astype(np.int64) for column in (DOCUMENT, POSITION, TOKEN)
    )
    numbers, which = np.unique(document, return_inverse=True)
    prints = [fingerprint(corpus, number) for number in numbers.tolist()]
    sides = np.array([side_of(print_, seed) == "explain" for print_ in prints])
    _, text = np.unique(prints, return_inverse=True)
    here = np.arange(len(document))
    return Rows(
        document=document,
        position=position,
        token=token,
        order=order,
        text=text[which].astype(np.int64),
        explain=sides[which],
        first=np.maximum(here - around, np.searchsorted(document, document, side="left")),
        last=np.minimum(here + around + 1, np.searchsorted(document, document, side="right")),
    )


def fingerprint(corpus: TokenDocuments, document: int) -> str:
    """A hash of a document's content: equal for copies, whatever their numbers."""
    return hashlib.sha256(corpus.document(document).astype("<i4").tobytes()).hexdigest()


def _key(document: npt.NDArray[Any], position: npt.NDArray[Any]) -> Ints:
    return (document.astype(np.int64) << 32) | position.astype(np.int64)


class Texts:
    """Windows of rows as text."""

    def __init__(self, rows: Rows, corpus: TokenDocuments) -> None:
        self._rows = rows
        self._tokenizer: Tokenizer = corpus.tokenizer().backend_tokenizer

    def contexts(self, marks: Sequence[int], centres: Sequence[int]) -> list[Context]:
        """The windows around the rows `centres`, cut at the rows `marks`, one in each."""
        rows, ids = self._rows, self._rows.token
        parts: list[list[int]] = []
        for mark, centre in zip(marks, centres, strict=True):
            begin, end = rows.first[centre], rows.last[centre]
            parts += [ids[begin:mark].tolist(), ids[begin : mark + 1].tolist(),
                      ids[begin:end].tolist(), ids[mark : mark + 1].tolist(),
                      ids[mark + 1 : end].tolist()]  # fmt: skip
        texts = self._decode(parts)
        return [_cut(*texts[i : i + 5]) for i in range(0, len(texts), 5)]

    def tokens(self, first: int, last: int) -> list[str]:
        """The texts of the rows first … last − 1, one by one."""
        return self._decode([[i] for i in self._rows.token[first:last].tolist()])

    def _decode(self, ids: list[list[int]]) -> list[str]:
        decoded: list[str] = self._tokenizer.decode_batch(ids, skip_special_tokens=False)
        return decoded


def _cut(before: str, through: str, whole: str, token: str, after: str) -> Context:
    """The whole text in three: decoded apart, words of some tokenizers would lose their blanks."""
    if LOST in through or not (through.startswith(before) and whole.startswith(through)):
        return Context(before, token, after)
    marked = through[len(before) :]
    blank = len(marked) - len(marked.lstrip())
    return Context(before + marked[:blank], marked[blank:], whole[len(through) :])
