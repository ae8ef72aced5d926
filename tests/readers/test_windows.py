"""Rows for the language model: every token once, nothing special under the mask."""

from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.windows import windows

BOS, PAD = 1, 1  # as GPT-2: one id for both


def corpus(documents: list[list[int]]) -> TokenDocuments:
    lengths = np.array([len(d) for d in documents])
    frame = pd.DataFrame({"start": np.cumsum(lengths) - lengths, "length": lengths})
    return TokenDocuments(Path(), np.concatenate(documents).astype(np.int32), frame)


lists = st.lists(st.lists(st.integers(2, 50), min_size=1, max_size=30), min_size=1, max_size=12)


@given(lists, st.integers(2, 12), st.booleans(), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_every_token_is_in_exactly_one_row_and_none_at_its_first_position(
    documents: list[list[int]], context: int, has_bos: bool, batch_size: int
) -> None:
    which = np.arange(len(documents))[::-1].copy()
    seen: dict[tuple[int, int], int] = {}
    for batch in windows(
        corpus(documents), which, context=context, bos=BOS if has_bos else None, special=(),
        pad=PAD, batch_size=batch_size,
    ):  # fmt: skip
        assert batch.tokens.shape == batch.mask.shape == (len(batch.length), context)
        assert len(batch.tokens) <= batch_size
        if has_bos:
            assert (batch.tokens[:, 0] == BOS).all()
        assert not batch.mask[:, 0].any()
        for row, column in zip(*np.nonzero(batch.mask), strict=True):
            place = (int(batch.document[row]), int(batch.offset[row] + column - has_bos))
            assert place not in seen
            seen[place] = int(batch.tokens[row, column])
        assert (batch.mask.sum(1) == batch.length - 1).all()
    assert seen == {
        (d, p): t
        for d, doc in enumerate(documents)
        for p, t in enumerate(doc)
        if has_bos or p % context
    }


def test_padding_is_masked_by_length_and_specials_by_id() -> None:
    """GPT-2's padding is its BOS and EOS: an id alone can't tell what is padding."""
    (batch,) = windows(
        corpus([[5, 1, 6]]), np.array([0]), context=6, bos=None, special=(), pad=PAD, batch_size=4
    )
    assert batch.mask.tolist() == [[False, True, True, False, False, False]]
    (batch,) = windows(
        corpus([[5, 1, 6]]), np.array([0]), context=6, bos=BOS, special={1}, pad=PAD, batch_size=4
    )
    assert batch.tokens.tolist() == [[1, 5, 1, 6, 1, 1]]
    assert batch.mask.tolist() == [[False, True, False, True, False, False]]
