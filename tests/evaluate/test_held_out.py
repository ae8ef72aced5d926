"""Facts of a hook's validation activations: exact, measured once, blind to batches."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.evaluate import held_out as module
from sae_repro.evaluate.held_out import Batch, HeldOut, held_out, validation_batches
from sae_repro.readers.shards import ActivationStore, row_key

HOOK = "blocks.0.hook_resid_post"
D = 5


def facts(x: np.ndarray, document: np.ndarray, size: int) -> HeldOut:
    index = np.stack([document, document * 0, document * 0], axis=1).astype(np.int32)

    def batches() -> Iterator[Batch]:
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            yield torch.from_numpy(x[part]), index[part]

    return HeldOut.of(batches, D)


@given(st.integers(1, 200), st.integers(1, 250), st.integers(0, 50))
@settings(deadline=None, max_examples=40)
def test_facts_are_those_of_all_tokens_whatever_the_batches_and_order(
    n: int, size: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, (n, D)).astype(np.float32)
    document = np.sort(rng.integers(0, 9, n)) * 3
    order = rng.permutation(n)
    measured = facts(x[order], document[order], size)
    assert measured.mean_d == pytest.approx(x.astype(np.float64).mean(axis=0))
    assert measured.document.tolist() == sorted(set(document.tolist()))
    for place, one in enumerate(measured.document):
        mine = x[document == one].astype(np.float64)
        assert measured.tokens[place] == len(mine)
        variance = np.square(mine - measured.mean_d).sum()
        assert measured.variance[place] == pytest.approx(variance, rel=1e-12)


@given(st.sets(st.integers(0, 40), max_size=30), st.lists(st.integers(0, 60), max_size=40))
def test_unseen_tokens_are_found_as_numpy_finds_them(unseen: set[int], asked: list[int]) -> None:
    """Also where no prefix is unseen, and past the last one that is."""
    document, position = np.divmod(np.array(sorted(unseen), dtype=np.int32), 7)
    measured = facts(np.ones((1, D), dtype=np.float32), np.zeros(1, dtype=np.int64), 1)
    held = replace(measured, unseen_key=row_key(document, position))
    places = np.divmod(np.array(asked, dtype=np.int32), 7)
    index = np.stack([*places, np.zeros(len(asked), dtype=np.int32)], axis=1)
    expected = np.isin(row_key(*places), held.unseen_key)
    assert held.unseen(index).tolist() == expected.tolist()


def test_a_process_measures_a_hook_once(
    make_store: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ActivationStore(make_store(d_in=D))
    first = held_out(store, HOOK, 100, "cpu")
    direct = HeldOut.of(lambda: validation_batches(store, HOOK, 100, "cpu"), D)
    assert np.array_equal(first.mean_d, direct.mean_d)
    assert np.array_equal(first.variance, direct.variance)
    monkeypatch.setattr(module.HeldOut, "of", lambda *a: pytest.fail("measured again"))
    assert held_out(ActivationStore(store.folder), HOOK, 100, "cpu") is first


def test_other_activations_in_the_same_folder_are_measured_anew(
    make_store: Callable[..., Path],
) -> None:
    first = held_out(ActivationStore(make_store(d_in=D)), HOOK, 100, "cpu")
    rng = np.random.default_rng(9)
    folder = make_store(d_in=D, validation=rng.standard_normal((800, D)).astype(np.float32))
    second = held_out(ActivationStore(folder), HOOK, 100, "cpu")
    assert not np.array_equal(first.mean_d, second.mean_d)
    assert second.tokens.sum() == 800
