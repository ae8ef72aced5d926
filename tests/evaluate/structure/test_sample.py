"""The stated sample: the same documents whatever the shards, each row with its own activations."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sae_repro.errors import StudyError
from sae_repro.evaluate.codes import Code, code_of
from sae_repro.evaluate.held_out import Batch
from sae_repro.evaluate.metrics.structure.sample import (
    Sample,
    collect,
    restricted,
    sampled,
    sampled_tokens,
)

N, K, D, LENGTH = 6_000, 7, 4, 20
FIXTURE = HealthCheck.function_scoped_fixture  # it holds nothing


def whole(planted: Callable[..., Sample]) -> Sample:
    rng = np.random.default_rng(0)
    a = rng.exponential(size=(N, K)) * (rng.random((N, K)) < 0.2)
    a[:, 2] = 0
    labels = rng.random((N, 3)) < (0.3, 0.1, 0.02)
    return planted(labels, a, x_nd=rng.standard_normal((N, D)), d_kd=rng.standard_normal((K, D)))


def drawn(source: Sample, size: int, seed: int | None, tokens: int = 2000) -> Sample:
    """The sample of `source`'s rows, streamed in batches of `size`, shuffled by `seed`."""
    n = len(source.x_nd)
    rows = np.arange(n) if seed is None else np.random.default_rng(seed).permutation(n)
    index = np.stack([source.bank.document, source.bank.position, source.bank.token], axis=1)
    index, a = index.astype(np.int32), torch.from_numpy(source.a_nk.toarray())

    def batches() -> Iterator[Batch]:
        for start in range(0, n, size):
            part = rows[start : start + size]
            yield torch.from_numpy(source.x_nd[part]), index[part]

    def codes() -> Iterator[Code]:
        for start in range(0, n, size + 100):
            part = rows[start : start + size + 100]
            yield code_of(a[part], index[part])

    chosen = sampled_tokens(batches(), source.bank, 1, tokens)
    return collect(codes, chosen, np.ones(D), source.d_kd)


@given(st.integers(100, 6000), st.integers(0, 50))
@settings(max_examples=10, deadline=None, suppress_health_check=[FIXTURE])
def test_neither_batches_nor_order_matter(
    planted: Callable[..., Sample], size: int, seed: int
) -> None:
    source = whole(planted)
    one, other = drawn(source, N, None), drawn(source, size, seed)
    assert np.array_equal(one.x_nd, other.x_nd)
    for name in ("data", "indices", "indptr"):
        assert np.array_equal(getattr(one.a_nk, name), getattr(other.a_nk, name))
    assert np.array_equal(one.bank.document, other.bank.document)


def test_sampled_rows_have_the_activations_of_all_rows(planted: Callable[..., Sample]) -> None:
    source = whole(planted)
    sample = drawn(source, 777, 5)
    row = sample.bank.document * LENGTH + sample.bank.position
    assert np.array_equal(row, np.sort(row))
    assert np.array_equal(sample.a_nk.toarray(), source.a_nk.toarray()[row])
    assert np.array_equal(sample.x_nd, source.x_nd[row])
    assert np.array_equal(sample.bank.document, source.bank.document[row])
    assert np.array_equal(sample.bank.fit, source.bank.fit[row])
    # 2 % of a thousand tokens are too few, and are counted
    assert sample.bank.names == ("c0", "c1")
    assert sample.bank.left_out == {"class": 1}
    assert np.array_equal(sample.bank.labels.toarray(), source.bank.labels.toarray()[row, :2])


def test_sample_holds_whole_documents_of_both_halves(planted: Callable[..., Sample]) -> None:
    bank = whole(planted).bank
    chosen = sampled(bank, 1, 2000)
    for half in (bank.fit, ~bank.fit):
        assert (chosen & half).sum() == 1000
    per_document = np.bincount(bank.document, weights=chosen)
    assert set(per_document) == {0, LENGTH}
    assert sampled(bank, 1, 10**6).all()
    # less than a document: one of either half all the same
    assert sampled(bank, 1, 5).sum() == 2 * LENGTH
    assert not np.array_equal(chosen, sampled(bank, 2, 2000))
    # a larger sample holds the smaller
    assert (sampled(bank, 1, 3000) | ~chosen).all()


def test_a_choice_depends_on_the_document_alone(planted: Callable[..., Sample]) -> None:
    bank = whole(planted).bank
    half = bank.document < 150
    few = restricted(bank, half)
    together, alone = sampled(bank, 1, 800), sampled(few, 1, 10**6)
    assert alone.all()
    assert set(few.document[sampled(few, 1, 800)]) >= set(bank.document[together & half])


def test_rows_that_the_bank_lacks_are_refused(planted: Callable[..., Sample]) -> None:
    source = whole(planted)
    index = np.stack([source.bank.document, source.bank.position + 100], axis=1)
    with pytest.raises(StudyError, match="not in the concept bank"):
        sampled_tokens([(torch.from_numpy(source.x_nd), index)], source.bank, 1, 2000)
