"""Token documents: bounds and splits of a corpus on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sae_repro.errors import StudyError
from sae_repro.readers.documents import TokenDocuments

TEXTS = [[5, 6, 7], [8], [5, 6, 7], [9, 9]]
SPLITS = ["train", "validation", "validation", "train"]


@pytest.fixture
def corpus(tmp_path: Path) -> TokenDocuments:
    def save(texts: Sequence[Sequence[int]]) -> None:
        length = np.array([len(text) for text in texts])
        np.save(tmp_path / "tokens.npy", np.concatenate(texts).astype(np.int32))
        pd.DataFrame(
            {"start": np.cumsum(length) - length, "length": length, "split": SPLITS}
        ).to_parquet(tmp_path / "documents.parquet")

    save(TEXTS)
    return TokenDocuments.load(tmp_path)


def test_documents_are_cut_at_their_bounds(corpus: TokenDocuments) -> None:
    assert [corpus.document(i).tolist() for i in range(4)] == TEXTS
    begin, end = corpus.bounds(np.array([3, 0]))
    assert corpus.pieces(begin, end) == [TEXTS[3], TEXTS[0]]


def test_a_split_holds_its_documents_in_order(corpus: TokenDocuments) -> None:
    assert corpus.split("train").tolist() == [0, 3]
    assert corpus.split("validation").tolist() == [1, 2]


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no corpus there; `dvc repro corpus` makes it"):
        TokenDocuments.load(tmp_path / "nowhere")
