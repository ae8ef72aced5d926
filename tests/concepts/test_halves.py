"""The split of the validation documents: by content, about half, copies together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.concepts.halves import contents, fit_documents, in_fit
from sae_repro.readers.documents import TokenDocuments


def corpus(documents: Sequence[Sequence[int]], splits: Sequence[str]) -> TokenDocuments:
    length = np.array([len(document) for document in documents])
    frame = pd.DataFrame({"start": np.cumsum(length) - length, "length": length, "split": splits})
    return TokenDocuments(Path(), np.concatenate(documents).astype(np.int32), frame)


def texts(n: int) -> list[list[int]]:
    return [[i, i % 7, i % 3] for i in range(n)]


texts_with_copies = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=3), min_size=2, max_size=40
)


@given(texts_with_copies, st.integers(0, 5))
@settings(deadline=None)
def test_copies_of_a_document_share_its_half(documents: list[list[int]], seed: int) -> None:
    fit = fit_documents(corpus(documents, ["validation"] * len(documents)), seed)
    half: dict[tuple[int, ...], bool] = {}
    for document, mine in zip(documents, fit, strict=True):
        assert half.setdefault(tuple(document), mine) == mine


def test_a_documents_half_depends_on_no_other_document() -> None:
    documents = texts(200)
    whole = fit_documents(corpus(documents, ["validation"] * 200), 3)
    turned = fit_documents(corpus(documents[::-1], ["validation"] * 200), 3)
    part = fit_documents(corpus(documents[50:], ["validation"] * 150), 3)
    assert np.array_equal(turned, whole[::-1])
    assert np.array_equal(part, whole[50:])


def test_the_corpus_is_halved_by_its_contents() -> None:
    documents = corpus(texts(300), ["validation"] * 300)
    of_document = contents(documents, np.arange(300))
    assert np.array_equal(fit_documents(documents, 4), in_fit(4, of_document))


def test_copies_have_one_content_and_others_do_not() -> None:
    documents = corpus([[5, 6, 7], [8], [5, 6, 7], [9, 9]], ["train"] * 4)
    of_document = contents(documents, np.arange(4))
    assert of_document[0] == of_document[2]
    assert len(set(of_document.tolist())) == 3
    assert contents(documents, np.array([3])) == of_document[3:]


def test_only_validation_documents_have_a_half() -> None:
    splits = np.array(["train", "validation", "calibration"] * 100)
    fit = fit_documents(corpus(texts(300), splits.tolist()), 0)
    assert not fit[splits != "validation"].any()
    assert fit[splits == "validation"].any()


@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_about_half_of_the_documents_are_in_the_fit_half(seed: int) -> None:
    fit = fit_documents(corpus(texts(4000), ["validation"] * 4000), seed)
    assert fit.mean() == pytest.approx(0.5, abs=0.03)


def test_seeds_halve_independently() -> None:
    contents = np.arange(4000)
    assert (in_fit(0, contents) == in_fit(1, contents)).mean() == pytest.approx(0.5, abs=0.03)
