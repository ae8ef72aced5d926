"""Splits of the documents (train, calibration, validation), by a hash of their content alone."""

from collections.abc import Set

from sae_repro.corpus.found import Found
from sae_repro.errors import StudyError
from sae_repro.params import Corpus

SPLITS = ("train", "calibration", "validation")


def split_of(print_: bytes, corpus: Corpus) -> str:
    """The split of the document with this fingerprint, whatever other documents there are."""
    position = int.from_bytes(print_[:8], "big") / 2**64
    if position < corpus.validation:
        return "validation"
    return "calibration" if position < corpus.validation + corpus.calibration else "train"


def check_splits(filled: Set[str], found: Found, corpus: Corpus) -> None:
    """StudyError where a split is none of those that have documents, `filled`."""
    empty = [split for split in SPLITS if split not in filled]
    if empty:
        raise StudyError(
            f"corpus: {found} leave none for {', '.join(empty)}; {found.advice()}, or a larger "
            f"share (corpus.validation {corpus.validation}, corpus.calibration "
            f"{corpus.calibration})"
        )
