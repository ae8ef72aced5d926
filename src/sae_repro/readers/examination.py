"""The examination of a model by `new`, `check` and the stage that brings it."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from sae_repro.checkpoint.configuration import read_config, shape_of
from sae_repro.checkpoint.files import check_files
from sae_repro.errors import StudyError
from sae_repro.hub import one_line
from sae_repro.readers.agreement import hooks_of, load_compared
from sae_repro.readers.hooked import hook_widths
from sae_repro.readers.subject import load_plain, vocabulary_of
from sae_repro.readers.tokenizer import check_vocabulary, read_tokenizer


class Examined(NamedTuple):
    """What an examined model has."""

    hooks: list[str]
    """All that a study may name."""
    widths: dict[str, int]
    """D of those that were asked for."""


def examine(folder: Path, what: str, *, hooks: Collection[str] = ()) -> Examined:
    """The hooks of the model in a Hugging Face folder, run once on the CPU against transformers'.

    StudyError, lines that `what` begins, where tensors are missing or left over, the model is no
    causal language model, the tokenizer does not fit it, or activations in the residual stream or
    at `hooks` are other than transformers'. Headers decide before a weight is read.
    """
    check_files(folder, what)
    shape_of(read_config(folder, what), what)
    rows = vocabulary_of(load_plain(folder, what, device="meta"))
    try:
        check_vocabulary(read_tokenizer(what, folder, local_files_only=True), rows, what)
    except OSError as error:
        raise StudyError(f"{what}: no tokenizer there ({one_line(error)})") from None
    bridge, _ = load_compared(folder, what, hooks=hooks)
    return Examined(hooks_of(bridge), hook_widths(bridge, hooks))
