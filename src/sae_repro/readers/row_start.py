"""The token that rows for the language model start with."""

from difflib import get_close_matches
from typing import TYPE_CHECKING

from sae_repro.errors import StudyError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast


def row_start(tokenizer: "PreTrainedTokenizerFast", prepend_bos: bool | str) -> int | None:
    """Id of the token in front of every row, by `extract.prepend_bos`; None where there is none.

    A tokenizer without BOS, as many have, starts rows with its EOS, as GPT-2 does. StudyError where
    it has neither, or the text given is no token of it.
    """
    if isinstance(prepend_bos, str):
        return token_id(tokenizer.backend_tokenizer, prepend_bos)
    if not prepend_bos:
        return None
    for start in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if isinstance(start, int):
            return start
    raise StudyError(
        "extract.prepend_bos = true: the tokenizer has neither BOS nor EOS; set it to false, or to "
        "the text of a token"
    )


def token_id(tokenizer: "Tokenizer", text: str) -> int:
    """Id of the one token whose text is `text`; StudyError, naming similar ones, without any."""
    found: int | None = tokenizer.token_to_id(text)
    if found is not None:
        return found
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if len(ids) == 1 and tokenizer.decode(ids, skip_special_tokens=False) == text:
        return int(ids[0])  # as "\\n", which byte-level vocabularies spell in letters of their own
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    near = get_close_matches(text, special, n=3) or get_close_matches(
        text, tokenizer.get_vocab(), n=3
    )
    raise StudyError(
        f"extract.prepend_bos = {text!r}: no token of the tokenizer, but {len(ids)}; give one, "
        f"such as {', '.join(map(repr, near or special[:3]))}, true (its BOS or EOS) or false"
    )
