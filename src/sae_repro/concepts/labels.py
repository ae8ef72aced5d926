"""Labels of tokens, each kind from one source: the grammar's own, the text's surface, a user's.

Every kind is a sparse matrix over the rows of a bank. A property of a token has two shifts, to the
row before and the row after it: where the document's edge leaves no neighbour, the shift is absent.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, vstack

from sae_repro.files import read_json
from sae_repro.readers.documents import TokenDocuments

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Label = Callable[[Ints, Mask], csr_array]
"""From places in the corpus [N], and which of them exist, to labels [N, C]."""

CHUNK = 65_536  # rows whose packed labels are opened at once


@dataclass(frozen=True)
class Labels:
    """Concepts of one kind, and which rows carry them: bool [N, C]."""

    kind: str
    names: list[str]
    labels: csr_array


@dataclass(frozen=True)
class Rows:
    """Positions of the rows of a bank, all int64 [N]: by document, then by position in it."""

    document: Ints
    position: Ints
    token: Ints
    start: Ints
    """Place in the corpus of the row's document."""
    length: Ints
    """Tokens in the row's document."""

    def places(self, by: int) -> tuple[Ints, Mask]:
        """The place in the corpus of the token `by` further on, and whether the document has it."""
        position = self.position + by
        present = (position >= 0) & (position < self.length)
        return np.where(present, self.start + position, 0), present


def with_shifts(kind: str, names: list[str], label: Label, rows: Rows) -> Iterator[Labels]:
    """The concepts themselves, then as `previous:name` and `next:name`."""
    yield Labels(kind, names, label(*rows.places(0)))
    for shift, by in (("previous", -1), ("next", 1)):
        yield Labels(shift, [f"{shift}:{name}" for name in names], label(*rows.places(by)))


def token_identity(rows: Rows, corpus: TokenDocuments) -> Labels:
    """`token:piece` for every id that occurs; pieces are unique in a vocabulary, texts are not."""
    ids, column = np.unique(rows.token, return_inverse=True)
    pieces = corpus.tokenizer().convert_ids_to_tokens(ids.tolist())
    return Labels("token", [f"token:{piece}" for piece in pieces], one_hot(column, len(ids)))


def one_hot(column: npt.NDArray[Any], n: int) -> csr_array:
    """Bool [N, n] with column `column` [N] set in each row; none where it is negative."""
    rows = np.flatnonzero(column >= 0)
    ones = np.ones(len(rows), dtype=bool)
    return csr_array((ones, (rows, column[rows])), shape=(len(column), n))


def story_labels(rows: Rows, folder: Path) -> Iterator[Labels]:
    """The classes of the story grammar with all their ancestors and shifts, then its states."""
    concepts = read_json(folder / "concepts.json")
    packed = np.load(folder / "labels.npy", mmap_mode="r", allow_pickle=False)
    number = {concept["name"]: i for i, concept in enumerate(concepts)}
    ancestors = [
        (i, number[c["parent"]]) for i, c in enumerate(concepts) if c["parent"] is not None
    ]

    def labeller(kind: str) -> tuple[list[str], Label]:
        chosen = [i for i, concept in enumerate(concepts) if concept["kind"] == kind]

        def label(place: Ints, present: Mask) -> csr_array:
            parts = []
            for begin in range(0, len(place), CHUNK):
                part = slice(begin, begin + CHUNK)
                bits = np.unpackbits(
                    packed[place[part]], axis=1, count=len(concepts), bitorder="little"
                ).astype(bool)
                # parents stand before their children: from the last on, all ancestors are reached
                for child, parent in reversed(ancestors):
                    bits[:, parent] |= bits[:, child]
                bits[~present[part]] = False
                parts.append(csr_array(bits[:, chosen]))
            return csr_array(vstack(parts))

        return [concepts[i]["name"] for i in chosen], label

    yield from with_shifts("class", *labeller("class"), rows)
    states, label = labeller("state")
    yield Labels("state", states, label(*rows.places(0)))
