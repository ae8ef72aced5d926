"""The guard against leakage: no document both explains a latent and scores the explanation.

A description that is scored on the texts it was written from scores itself. The known way to get
there is to draw both sets of contexts from one list with one seed.
"""

from collections.abc import Sequence

from sae_repro.errors import StudyError


def check_disjoint(explain: Sequence[int], score: Sequence[int]) -> None:
    """StudyError where a document, numbered by its content, both explains and scores."""
    shared = set(explain) & set(score)
    if shared:
        raise StudyError(
            f"judge: {len(shared)} documents both explain and score, e.g. {min(shared)}; draw the "
            "contexts of either kind from its own half of the documents (concepts.halves)"
        )
