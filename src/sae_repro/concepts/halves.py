"""The two halves of the validation documents: concepts and labels are chosen on one, scored on
the other.

A document's half follows from its content, so that copies under different numbers never stand on
both sides. M, the structure metrics, the word patterns and the judge all split here.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.numerics.hashing import fingerprint, uniform_hash
from sae_repro.readers.documents import FINGERPRINTS, TokenDocuments

Mask = npt.NDArray[np.bool_]


def contents(corpus: TokenDocuments, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """A number for the content of each of the documents `numbers`: copies share it.

    Given activations' content is theirs: many documents may show one text.
    """
    if corpus.given:
        given: npt.NDArray[np.uint64] = np.load(corpus.folder / FINGERPRINTS, allow_pickle=False)
        return given[numbers]
    marks = [
        fingerprint(corpus.document(number).astype("<i4").tobytes(), 0)[:8]
        for number in numbers.tolist()
    ]
    return np.frombuffer(b"".join(marks), dtype="<u8")


def in_fit(seed: int, content: npt.NDArray[Any]) -> Mask:
    """Whether each document is in the fit half, by its content's number (see `contents`)."""
    return uniform_hash(seed, "halves", content) < 0.5


def fit_documents(corpus: TokenDocuments, seed: int) -> Mask:
    """Of every document of the corpus, by number, whether it is in the fit half.

    Only validation documents have a half; all others are False.
    """
    numbers = corpus.split("validation")
    fit = np.zeros(len(corpus.documents), dtype=bool)
    fit[numbers] = in_fit(seed, contents(corpus, numbers))
    return fit
