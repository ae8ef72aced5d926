"""Which documents are trained on, calibrated on, held out: decided by their content alone."""

from sae_repro.params import Corpus

SPLITS = ("train", "calibration", "validation")


def split_of(print_: bytes, corpus: Corpus) -> str:
    """The split of the document with this fingerprint, whatever other documents there are."""
    share = int.from_bytes(print_[:8], "big") / 2**64
    if share < corpus.validation:
        return "validation"
    return "calibration" if share < corpus.validation + corpus.calibration else "train"
