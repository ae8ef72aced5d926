"""The tokenizer that belongs to a model from outside the study."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.errors import StudyError
from sae_repro.hub import connection_errors, fetching, one_line, reachable
from sae_repro.params import HubSubject, PretrainedSubject
from sae_repro.pins import check_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def pretrained(source: PretrainedSubject, folder: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer that belongs to a pinned model; `folder` holds params.yaml.

    StudyError where it needs code of its own, or has no fast form (tokenizer.json).
    """
    if not isinstance(source, HubSubject):
        path = check_model(source, folder)
        source_name = f"subject.source.path: {path}"
        try:
            return read_tokenizer(source_name, path, local_files_only=True)
        except OSError as error:
            raise StudyError(f"{source_name}: no tokenizer there ({one_line(error)})") from None
    source_name = f"subject.source: the tokenizer of {source.name} at {source.revision}"
    try:
        return read_tokenizer(
            source_name, source.name, revision=source.revision, local_files_only=True
        )
    except OSError:
        reachable(source_name)
        with fetching(source_name):
            read_tokenizer(source_name, source.name, revision=source.revision)
    # read from the cache in both cases: the saved folder records how it was read
    return read_tokenizer(source_name, source.name, revision=source.revision, local_files_only=True)


def read_tokenizer(source_name: str, name: str | Path, **options: Any) -> "PreTrainedTokenizerFast":
    """The tokenizer in a folder or, by `options`, of the hub; `source_name` begins each error.

    StudyError where it is damaged, needs code of its own or has no fast form; OSError where there
    is none.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        # by default, a model with code of its own asks at the terminal whether to run it
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
    except connection_errors():
        raise  # missing, not in the cache, or the hub is unreachable
    except Exception as error:  # a damaged tokenizer.json raises errors of many kinds
        raise StudyError(
            f"{source_name}: the tokenizer can't be read ({one_line(error)}); it must come "
            "whole, as tokenizer.json, and need no code of its own"
        ) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise StudyError(
            f"{source_name}: {type(tokenizer).__name__} has no fast form; choose a model with a "
            "tokenizer.json"
        )
    # a tokenizer.json can carry both from its training; documents stay whole, rows are cut later
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def check_vocabulary(tokenizer: "PreTrainedTokenizerFast", rows: int, what: str) -> None:
    """StudyError where an id of `tokenizer` has no row among the `rows` of the embedding."""
    ids = tokenizer.get_vocab() | tokenizer.get_added_vocab()
    beyond = sorted((number, token) for token, number in ids.items() if number >= rows)
    if beyond:
        number, token = beyond[0]
        raise StudyError(
            f"{what}: the tokenizer has {len(beyond)} ids beyond the model's {rows} embeddings, "
            f"the first {token!r} = {number}; use the tokenizer that the model was trained with, "
            "or save the model after `resize_token_embeddings`"
        )
