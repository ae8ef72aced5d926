"""Splits of the documents (train, calibration, tuning, validation), by a hash of their content.

Copies of a text have one hash: they share a split.
"""

from collections.abc import Set

from sae_repro.corpus.found import Found
from sae_repro.errors import StudyError
from sae_repro.params import Corpus

SPLITS = ("train", "calibration", "validation")
TUNING = "tuning"


def splits_of(corpus: Corpus) -> tuple[str, ...]:
    """The splits that documents of `corpus` may be in; tuning only where its share is not 0."""
    return (*SPLITS, TUNING) if corpus.tuning else SPLITS


def split_of(print_: bytes, corpus: Corpus) -> str:
    """The split of the document with this fingerprint, whatever other documents there are."""
    position = int.from_bytes(print_[:8], "big") / 2**64
    end = 0.0
    for split in ("validation", "calibration", TUNING):
        end += getattr(corpus, split)
        if position < end:
            return split
    return "train"


def check_splits(filled: Set[str], found: Found, corpus: Corpus) -> None:
    """StudyError where a split is none of those that have documents, `filled`."""
    empty = [split for split in splits_of(corpus) if split not in filled]
    if empty:
        tuning = f", corpus.tuning {corpus.tuning}" if corpus.tuning else ""
        raise StudyError(
            f"corpus: {found} leave none for {', '.join(empty)}; {found.advice()}, or a larger "
            f"share (corpus.validation {corpus.validation}, corpus.calibration "
            f"{corpus.calibration}{tuning})"
        )
