"""The held-out tokens in document order, their windows, and their windows' text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.concepts.halves import contents, fit_documents
from sae_repro.judge.prompts.fence import Context
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import DOCUMENT, POSITION, TOKEN, row_key

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

REPLACEMENT = "\ufffd"  # decoded where a token ends within a character


@dataclass(frozen=True)
class HeldOutTokens:
    """N tokens with activations, by document, then by position in it; all arrays are [N]."""

    document: Ints
    position: Ints
    token: Ints
    order: Ints
    """Index of each row among the activations as they are stored."""
    content: Ints
    """The row's document by its content: copies share a number."""
    explain: Mask
    """Whether the row's document explains (the fit half) or scores (the test half)."""
    first: Ints
    last: Ints
    """The row's window: rows first … last − 1, all of its document."""

    @property
    def key(self) -> Ints:
        """One ascending number per row, the same in every study that holds the token."""
        return row_key(self.document, self.position)

    def find(self, document: npt.NDArray[Any], position: npt.NDArray[Any]) -> Ints:
        """The rows of these tokens, each of which must be one."""
        rows = np.searchsorted(self.key, row_key(document, position)).astype(np.int64)
        assert np.array_equal(self.position[rows], position)
        return rows


def held_out_tokens(
    index: npt.NDArray[Any], corpus: TokenDocuments, around: int, seed: int
) -> HeldOutTokens:
    """The tokens of `index` [N, 3] as the store gives it; windows reach `around` rows either way.

    A document explains or scores by a hash of its content, as in M, so that copies stay together.
    """
    order = np.argsort(row_key(index[:, DOCUMENT], index[:, POSITION]), kind="stable")
    document, position, token = (
        index[order, column].astype(np.int64) for column in (DOCUMENT, POSITION, TOKEN)
    )
    numbers, document_of_row = np.unique(document, return_inverse=True)
    _, content = np.unique(contents(corpus, numbers), return_inverse=True)
    row = np.arange(len(document))
    return HeldOutTokens(
        document=document,
        position=position,
        token=token,
        order=order,
        content=content[document_of_row].astype(np.int64),
        explain=fit_documents(corpus, seed)[document],
        first=np.maximum(row - around, np.searchsorted(document, document, side="left")),
        last=np.minimum(row + around + 1, np.searchsorted(document, document, side="right")),
    )


class WindowTexts:
    """Windows of held-out tokens as text."""

    def __init__(self, tokens: HeldOutTokens, corpus: TokenDocuments) -> None:
        self._tokens = tokens
        self._tokenizer: Tokenizer = corpus.tokenizer().backend_tokenizer

    def contexts(self, marks: Sequence[int], centres: Sequence[int]) -> list[Context]:
        """The windows around the rows `centres`, each with its token at the row of `marks`."""
        rows, ids = self._tokens, self._tokens.token
        parts: list[list[int]] = []
        for mark, centre in zip(marks, centres, strict=True):
            begin, end = rows.first[centre], rows.last[centre]
            parts += [ids[begin:mark].tolist(), ids[begin : mark + 1].tolist(),
                      ids[begin:end].tolist(), ids[mark : mark + 1].tolist(),
                      ids[mark + 1 : end].tolist()]  # fmt: skip
        texts = self._decode(parts)
        return [_split(*texts[i : i + 5]) for i in range(0, len(texts), 5)]

    def tokens(self, first: int, last: int) -> list[str]:
        """The texts of the rows first … last − 1, one by one."""
        return self._decode([[i] for i in self._tokens.token[first:last].tolist()])

    def _decode(self, ids: list[list[int]]) -> list[str]:
        decoded: list[str] = self._tokenizer.decode_batch(ids, skip_special_tokens=False)
        return decoded


def _split(before: str, through: str, whole: str, token: str, after: str) -> Context:
    """The whole text in three: decoded apart, words of some tokenizers would lose their blanks."""
    if REPLACEMENT in through or not (through.startswith(before) and whole.startswith(through)):
        return Context(before, token, after)
    marked = through[len(before) :]
    blank = len(marked) - len(marked.lstrip())
    return Context(before + marked[:blank], marked[blank:], whole[len(through) :])
