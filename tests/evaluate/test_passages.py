"""The text around a token: found by place, cut to a suffix, refused where files don't fit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sae_repro.errors import StudyError
from sae_repro.evaluate.passages import Passages
from sae_repro.files import read_json, write_json
from sae_repro.readers.shards import ActivationStore


@pytest.fixture
def store(make_store: Callable[..., Path]) -> ActivationStore:
    """Validation activations of 20-token documents, each a row of BOS and its tokens."""
    folder = make_store(validation=60)
    index = np.concatenate(list(ActivationStore(folder).index("validation").batches(99)))
    (folder / "windows").mkdir()
    tokens = np.full((3, 21), 9, dtype=np.int32)
    tokens[:, 1:] = index[:, 2].reshape(3, 20)
    mask = np.ones(tokens.shape, dtype=bool)
    mask[:, 0] = False
    rows = {"tokens": tokens, "mask": mask, "document": [[0], [1], [2]], "length": [[21]] * 3}
    for name, values in rows.items():
        np.save(folder / "windows" / f"{name}.npy", np.array(values))
    return ActivationStore(folder)


def test_a_token_is_found_by_document_and_position(store: ActivationStore) -> None:
    passages = Passages.load(store)
    row, column = passages.find(np.array([2, 0, 1]), np.array([5, 0, 19]))
    assert row.tolist() == [2, 0, 1]
    assert column.tolist() == [6, 1, 20]
    assert passages.length.tolist() == [21, 21, 21]


def test_a_suffix_ends_at_its_token_and_starts_behind_the_bos(store: ActivationStore) -> None:
    passages = Passages.load(store)
    text = passages.suffix(np.array([0, 2]), np.array([4, 20]), 3)
    assert text.tolist() == [
        passages.tokens[0, 2:5].tolist(), passages.tokens[2, 18:21].tolist(),
    ]  # fmt: skip
    assert passages.behind_bos(text)[:, 0].tolist() == [9, 9]
    assert np.array_equal(passages.behind_bos(text)[:, 1:], text)


def test_a_model_without_bos_gets_none(store: ActivationStore) -> None:
    path = store.folder / "manifest.json"
    write_json(path, {**read_json(path), "prepend_bos": False})
    text = np.array([[1, 2]])
    assert np.array_equal(Passages.load(ActivationStore(store.folder)).behind_bos(text), text)


def test_rows_of_another_extraction_are_refused(store: ActivationStore) -> None:
    mask = np.load(store.folder / "windows" / "mask.npy")
    mask[0, 3] = False
    np.save(store.folder / "windows" / "mask.npy", mask)
    with pytest.raises(StudyError, match="59 real tokens, but 60 validation activations"):
        Passages.load(store)
