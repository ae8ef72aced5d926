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

from sae_repro.errors import StudyError
from sae_repro.files import read_json
from sae_repro.readers.documents import TokenDocuments

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Label = Callable[[Ints, Mask], csr_array]
"""From places in the corpus [N], and which of them exist, to labels [N, C]."""

CHUNK = 65_536  # rows whose packed labels are opened at once
SPAN_COLUMNS = ("document", "start", "end", "concept")


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


def user_labels(rows: Rows, path: Path) -> Labels:
    """`user:concept` from a parquet of token spans: document, start, end (exclusive), concept.

    StudyError where a column is missing, or a span is empty or lies before its document's start.
    """
    import pandas as pd

    spans = pd.read_parquet(path)
    missing = [name for name in SPAN_COLUMNS if name not in spans]
    if missing:
        raise StudyError(
            f"evaluate.concepts: {path} lacks {', '.join(missing)}; its columns are "
            f"{', '.join(SPAN_COLUMNS)}, a row per span of tokens"
        )
    invalid = spans.index[(spans["start"] < 0) | (spans["end"] <= spans["start"])]
    if len(invalid):
        raise StudyError(
            f"evaluate.concepts: {path}, row {invalid[0]}: start must be ≥ 0 and before end"
        )
    concept, names = pd.factorize(spans["concept"].astype(str), sort=True)
    document = spans["document"].to_numpy(np.int64) << 32
    key = (rows.document << 32) | rows.position
    first = np.searchsorted(key, document + spans["start"].to_numpy(np.int64))
    last = np.searchsorted(key, document + spans["end"].to_numpy(np.int64))
    size = np.maximum(last - first, 0)
    row = np.repeat(first - (np.cumsum(size) - size), size) + np.arange(size.sum())
    ones = np.ones(len(row), dtype=np.int32)
    marks = csr_array((ones, (row, np.repeat(concept, size))), shape=(len(key), len(names)))
    return Labels("user", [f"user:{name}" for name in names], marks.astype(bool))
