"""Splits of the documents (train, calibration, validation), by a hash of their content alone."""

from sae_repro.params import Corpus

SPLITS = ("train", "calibration", "validation")


def split_of(print_: bytes, corpus: Corpus) -> str:
    """The split of the document with this fingerprint, whatever other documents there are."""
    position = int.from_bytes(print_[:8], "big") / 2**64
    if position < corpus.validation:
        return "validation"
    return "calibration" if position < corpus.validation + corpus.calibration else "train"
