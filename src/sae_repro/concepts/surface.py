"""Surface concepts, which any text has without manual labels: looks, place, frequency.

All follow from the token's decoded text, its position and its frequency in training documents. The
class of the document, if it has one, is of the text's source, not of its surface.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sae_repro.concepts.labels import Ints, Labels, Mask, Rows, one_hot, with_shifts
from sae_repro.readers.documents import TokenDocuments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LOOKS = (
    "casing:lower", "casing:Capitalised", "casing:UPPER", "digits", "punctuation",
    "word:starts", "word:continues",
)  # fmt: skip
FREQUENCIES = ("frequency:top 1 %", "frequency:1–10 %", "frequency:rest")
POSITIONS = ("position:first", "position:first tenth", "position:last tenth")
DOCUMENTS = 65_536  # documents whose tokens are counted at once


def surface_labels(rows: Rows, corpus: TokenDocuments) -> Iterator[Labels]:
    """Looks and frequency classes with their shifts, and position."""
    looks = np.array([looks_of(text) for text in texts_of(corpus.tokenizer())], dtype=bool)
    tables = (
        ("look", LOOKS, looks),
        ("frequency", FREQUENCIES, frequency_classes(training_counts(corpus, len(looks)))),
    )
    for kind, names, table in tables:

        def label(place: Ints, present: Mask, table: npt.NDArray[np.bool_] = table) -> csr_array:
            labels = table[corpus.tokens[place]]
            labels[~present] = False
            return csr_array(labels)

        yield from with_shifts(kind, list(names), label, rows)
    first = rows.position == 0
    tenths = 10 * rows.position < rows.length, 10 * rows.position >= 9 * rows.length
    yield Labels("position", list(POSITIONS), csr_array(np.stack([first, *tenths], axis=1)))


def texts_of(tokenizer: "PreTrainedTokenizerFast") -> list[str]:
    """The text of every id as it stands behind another word: white space in front of it kept.

    Alone, many tokenizers decode a token without the space that belongs to it.
    """
    backend = tokenizer.backend_tokenizer
    n = len(tokenizer)
    texts: list[str] = backend.decode_batch([[i] for i in range(n)], skip_special_tokens=False)
    anchor = next((i for i, text in enumerate(texts) if text.isascii() and text.isalpha()), 0)
    pairs = backend.decode_batch([[anchor, i] for i in range(n)], skip_special_tokens=False)
    front = texts[anchor]
    return [
        pair[len(front) :] if pair.startswith(front) else text
        for pair, text in zip(pairs, texts, strict=True)
    ]


def looks_of(text: str) -> tuple[bool, ...]:
    """The `LOOKS` of a token's text. UPPER needs two letters; "I" is Capitalised."""
    bare = text.strip()
    letters = [c for c in bare if c.isalpha()]
    upper = len(letters) > 1 and all(c.isupper() for c in letters)
    word = bare[:1].isalnum()
    spaced = text[:1].isspace()
    return (
        bool(letters) and bare.islower(),
        bool(letters) and letters[0].isupper() and not any(c.isupper() for c in letters[1:]),
        upper,
        any(c.isdigit() for c in bare),
        bool(bare) and not any(c.isalnum() for c in bare),
        word and spaced,
        word and not spaced,
    )


def training_counts(corpus: TokenDocuments, vocabulary: int) -> Ints:
    """Occurrences of each id in training documents, [V]."""
    length = corpus.documents["length"].to_numpy()
    train = (corpus.documents["split"] == "train").to_numpy()
    ends = np.cumsum(length, dtype=np.int64)
    counts = np.zeros(vocabulary, dtype=np.int64)
    for begin in range(0, len(length), DOCUMENTS):
        part = slice(begin, begin + DOCUMENTS)
        tokens = corpus.tokens[ends[begin] - length[begin] : ends[part][-1]]
        counts += np.bincount(tokens[np.repeat(train[part], length[part])], minlength=vocabulary)
    return counts


def frequency_classes(counts: Ints) -> npt.NDArray[np.bool_]:
    """[V, 3]: the most frequent 1 % of the ids seen in training, the next up to 10 %, the rest.

    Ids of equal count go by number; ids that training never saw belong to the rest.
    """
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    occurring = int((counts > 0).sum())
    top, ten = rank < np.ceil(0.01 * occurring), rank < np.ceil(0.1 * occurring)
    return np.stack([top, ten & ~top, ~ten], axis=1)


def document_labels(rows: Rows, corpus: TokenDocuments) -> Iterator[Labels]:
    """The classes of each row's document, where documents have some: of several kinds, by kind."""
    import pandas as pd

    for kind, of_kind in corpus.labels.items():
        of_document, names = pd.factorize(of_kind, sort=True)  # −1 where it has none
        labels = one_hot(of_document[rows.document], len(names))
        prefix = f"document:{kind}=" if kind else "document:"  # no kind's own name has =
        yield Labels("document", [f"{prefix}{name}" for name in names], labels)
