"""Refusal of a search where `extract.keep: buffer` leaves a part of the training rows on disk."""

from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.params import Extract


def check_all_kept(extract: Extract, study: Path) -> None:
    """StudyError where trials would need rounds of training activations that are not kept.

    The stage `train` takes all its cells through a round and has the next extracted in its place;
    trials begin one after another, each with the first round. `study` is the study's folder.
    """
    if extract.keep == "all" or extract.buffer is None or extract.n_tokens <= extract.buffer:
        return
    raise StudyError(
        f"{study / 'tune/params.yaml'}: trials train on {extract.n_tokens:,} tokens "
        f"(extract.n_tokens), of which extract.keep = buffer keeps {extract.buffer:,} on the disk "
        "(extract.buffer); set extract.keep to all in params.yaml, or take tune/ out of the study"
    )
