"""What is explained stays apart from what is scored: by document, and draw by draw.

A description that is scored on the texts it was written from scores itself. The known way to get
there is to draw both from one list of contexts with one seed. Here a document is on one side or
the other, by a hash of (seed, document), and every draw has a purpose in its hash.
"""

import hashlib
from collections.abc import Hashable, Sequence
from typing import Literal, TypeVar

from sae_repro.errors import StudyError

Side = Literal["explain", "score"]
Document = int | str
T = TypeVar("T", bound=Hashable)


def fraction(*name: int | str) -> float:
    """A number in [0, 1) that is a function of `name` alone."""
    # one JSON-like text per part: ("a/b",) and ("a", "b") differ
    text = "/".join(repr(part) for part in name)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2.0**48


def side_of(document: Document, seed: int, share: float = 0.5) -> Side:
    """Where a document belongs; `share` of them explain.

    `document` is its number, or a fingerprint of its content where exact copies occur: copies
    under different numbers could come to lie on both sides.
    """
    return "explain" if fraction(seed, "judge", "side", document) < share else "score"


def split(
    documents: Sequence[Document], seed: int, share: float = 0.5
) -> tuple[list[int], list[int]]:
    """The rows that explain and the rows that score, of contexts in these documents."""
    sides = [side_of(document, seed, share) for document in documents]
    rows = range(len(sides))
    return [i for i in rows if sides[i] == "explain"], [i for i in rows if sides[i] == "score"]


def draw(among: Sequence[T], n: int, seed: int, *purpose: int | str) -> list[T]:
    """At most `n` of `among`, least hash of (seed, purpose, item) first, whatever their order."""
    return sorted(among, key=lambda item: (fraction(seed, *purpose, repr(item)), repr(item)))[:n]


def check_disjoint(explain: Sequence[Document], score: Sequence[Document]) -> None:
    """StudyError where a document both explains and scores."""
    both = set(explain) & set(score)
    if both:
        raise StudyError(
            f"judge: {len(both)} documents are on both sides, e.g. {min(map(str, both))}; what is "
            "explained must not be scored: split the contexts with judge.documents.split"
        )
