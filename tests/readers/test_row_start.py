"""The token in front of each row: the tokenizer's own, a given one, or none."""

import pytest

from sae_repro.corpus.tokenizers import word_level
from sae_repro.errors import StudyError
from sae_repro.readers.row_start import row_start


def test_bos_else_eos_else_a_refusal() -> None:
    tokenizer = word_level(["cat", "dog"])
    assert row_start(tokenizer, True) == tokenizer.bos_token_id
    assert row_start(tokenizer, False) is None
    tokenizer.bos_token = None
    assert row_start(tokenizer, True) == tokenizer.eos_token_id
    tokenizer.eos_token = None
    with pytest.raises(StudyError, match="neither BOS nor EOS"):
        row_start(tokenizer, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [("ca", r"'ca': no token of the tokenizer, .* 'cat'"), ("dog cat", "but 2"), ("zz", "false")],
)
def test_a_tokens_text_is_one_token(text: str, says: str) -> None:
    tokenizer = word_level(["cat", "dog"])
    assert tokenizer.decode([row_start(tokenizer, "dog")]) == "dog"
    assert row_start(tokenizer, tokenizer.eos_token) == tokenizer.eos_token_id
    with pytest.raises(StudyError, match=says):
        row_start(tokenizer, text)
