"""Correlations over tokens: exact values, their null, the map, and independence of batches."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.autoencoders import SAE, Weights
from sae_repro.evaluate.codes import Code, code_of
from sae_repro.evaluate.held_out import Batch
from sae_repro.evaluate.metrics.references import correlation
from sae_repro.evaluate.metrics.references.correlation import (
    EncodedReferences,
    Rows,
    correlations,
    sampled_rows,
)

LENGTH = 20


def codes(n: int, k: int, density: float = 0.1, seed: int = 0) -> np.ndarray:
    """Sparse, skewed, non-negative activations [n, k]."""
    rng = np.random.default_rng(seed)
    return ((rng.random((n, k)) < density) * rng.random((n, k)) ** 2).astype(np.float32)


def index_of(n: int, length: int = LENGTH) -> np.ndarray:
    at = np.arange(n)
    return np.stack([at // length, at % length, at % 7], axis=1).astype(np.int32)


def reads(d: int, *columns: int) -> SAE:
    """An SAE whose latents are these columns of the activations [n, d]."""
    w = torch.eye(d)[:, list(columns)]
    return SAE("standard", Weights(w, torch.zeros(len(columns)), w.T, torch.zeros(d)))


def correlated(
    a: np.ndarray,
    x: np.ndarray,
    references: Mapping[int, SAE | None],
    *,
    length: int = LENGTH,
    rows: Rows | None = None,
    size: int = 10**6,
    order: np.ndarray | None = None,
) -> tuple:
    """For codes a [n, k] and activations x [n, d] of the same tokens, all sampled."""
    index = index_of(len(x), length)
    order = np.arange(len(x)) if order is None else order

    def codes() -> Iterator[Code]:
        for start in range(0, len(a), size):
            part = order[start : start + size]
            yield code_of(torch.from_numpy(a[part]), index[part])

    every = Rows(torch.from_numpy(x), index[:, 0].astype(np.int64), index[:, 1].astype(np.int64))
    sampled = every if rows is None else rows
    encoded = EncodedReferences.of(references, sampled, 0)
    return correlations(codes, encoded, sampled, (a > 0).sum(0), 0)


def test_correlations_equal_numpys() -> None:
    x = codes(5000, 15)
    x[:, 3] = 0.7 * x[:, 9] + 0.3 * x[:, 3]
    frame, _, summary = correlated(x[:, 5:], x, {5: reads(15, 0, 1, 2, 3, 4)})
    expected = np.corrcoef(x.astype(np.float64).T)[:5, 5:]
    assert frame["correlation"].to_numpy() == pytest.approx(expected.max(axis=1), abs=1e-12)
    assert frame["latent"].tolist() == expected.argmax(axis=1).tolist()
    assert frame["latent"][3] == 4
    assert summary.metrics["mean_max_correlation_5"] == pytest.approx(expected.max(axis=1).mean())
    low, high = summary.intervals["mean_max_correlation_5"]
    assert low < expected.max(axis=1).mean() < high
    assert summary.counts["reference_latents_5"] == 5
    assert summary.counts["correlation_tokens"] == 5000
    assert summary.counts["correlation_documents"] == 250


def test_a_dictionary_that_holds_the_reference_reaches_one() -> None:
    x = codes(3000, 8)
    _, _, summary = correlated(x, x, {8: reads(8, *range(8))})
    assert summary.metrics["mean_max_correlation_8"] == pytest.approx(1.0, abs=1e-12)
    assert summary.metrics["mean_max_correlation_null_8"] < 0.2


def test_order_and_scale_of_latents_do_not_matter() -> None:
    x = codes(3000, 12)
    order = np.random.default_rng(1).permutation(8)
    scale = (2.0 ** np.arange(-4, 4)).astype(np.float32)
    reference = {4: reads(12, 8, 9, 10, 11)}
    plain, _, one = correlated(x[:, :8], x, reference)
    turned, _, two = correlated(x[:, order] * scale, x, reference)
    assert order[turned["latent"]].tolist() == plain["latent"].tolist()
    assert one.metrics == pytest.approx(two.metrics, rel=1e-12)


def test_latents_that_share_nothing_stand_at_the_null() -> None:
    """A raw maximum over many latents looks like a finding; the null shows that it is none."""
    x = codes(4000, 330, density=0.02)
    reference = {30: reads(330, *range(30))}
    _, _, summary = correlated(x[:, 30:], x, reference)
    value, null = (summary.metrics[f"mean_max_correlation{name}_30"] for name in ("", "_null"))
    assert value > 0.04
    assert value == pytest.approx(null, abs=0.01)
    few = correlated(x[:, 30:40], x, reference)[2]
    assert few.metrics["mean_max_correlation_null_30"] < null  # it grows with K


def test_the_null_meets_other_documents_at_the_same_distance_from_their_start() -> None:
    """The shift goes by documents: what depends on the position alone survives it."""
    n = 40 * LENGTH
    by_position = (np.arange(n) % LENGTH == 3).astype(np.float32)
    rng = np.random.default_rng(0)
    by_document = rng.standard_normal(40).repeat(LENGTH).clip(0).astype(np.float32)
    x = np.stack([by_position, by_document], axis=1)
    frame, _, _ = correlated(x, x, {2: reads(2, 0, 1)})
    assert frame["correlation"].tolist() == pytest.approx([1.0, 1.0])
    assert frame["null"][0] == pytest.approx(1.0)
    assert frame["null"][1] < 0.5


def test_without_a_second_document_there_is_no_null() -> None:
    x = codes(500, 4)
    _, _, summary = correlated(x[:, :2], x, {2: reads(4, 2, 3)}, length=500)
    assert summary.metrics["mean_max_correlation_2"] is not None
    assert summary.metrics["mean_max_correlation_null_2"] is None
    assert list(summary.intervals) == ["mean_max_correlation_2"]


def test_constant_latents_are_left_out_and_counted() -> None:
    x = codes(1000, 4)
    x[:, 0], x[:, 1] = 0.0, 0.1
    x[:, 2] = 0.3 * x[:, 3]
    frame, drawn, summary = correlated(x[:, [1, 3]], x, {3: reads(4, 0, 1, 2), 7: None})
    assert frame["reference_latent"].tolist() == [2]
    assert frame["latent"].tolist() == [1]
    assert summary.counts["reference_latents_left_out_3"] == 2
    assert summary.metrics["mean_max_correlation_7"] is None
    assert drawn.latent.tolist() == [1]
    nothing = correlated(x[:, :2], x, {3: reads(4, 0, 1, 2)})
    assert nothing[0].empty
    assert nothing[2].metrics["mean_max_correlation_3"] is None
    assert nothing[1].correlation.shape == (0, 0)


@given(st.integers(1, 900), st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_neither_batches_nor_shards_change_more_than_rounding(size: int, seed: int) -> None:
    x, index = codes(800, 9, density=0.3), index_of(800)
    shards = np.split(np.arange(800), [300, 520])
    turned = np.concatenate([shards[i] for i in np.random.default_rng(seed).permutation(3)])

    def measured(order: np.ndarray, size: int) -> tuple:
        def batches() -> Iterator[Batch]:
            for start in range(0, 800, size):
                part = order[start : start + size]
                yield torch.from_numpy(x[part]), index[part]

        rows = sampled_rows(batches, 40_000, 3)
        assert 0 < len(rows.document) < 800
        return correlated(x[:, :6], x, {3: reads(9, 6, 7, 8)}, rows=rows, size=size, order=order)

    frame, drawn, summary = measured(np.arange(800), 800)
    other_frame, other_drawn, other = measured(turned, size)
    assert summary.counts == other.counts
    assert summary.metrics == pytest.approx(other.metrics, rel=1e-12)
    for name, interval in summary.intervals.items():
        assert other.intervals[name] == pytest.approx(interval, rel=1e-12)
    pd.testing.assert_frame_equal(frame, other_frame, rtol=1e-12)
    assert np.array_equal(drawn.latent, other_drawn.latent)
    assert drawn.correlation == pytest.approx(other_drawn.correlation, rel=1e-12, abs=1e-15)


def test_only_sampled_documents_count() -> None:
    x, index = codes(800, 4, density=0.3), index_of(800)
    some = index[:, 0] % 3 == 0
    part = Rows(torch.from_numpy(x[some]), *index[some, :2].astype(np.int64).T)
    frame, _, summary = correlated(x[:, :2], x, {2: reads(4, 2, 3)}, rows=part)
    expected = np.corrcoef(x[some].astype(np.float64).T)[2:, :2]
    assert frame["correlation"].to_numpy() == pytest.approx(expected.max(axis=1), abs=1e-12)
    assert summary.counts["correlation_tokens"] == some.sum()
    none = Rows(torch.zeros(0, 4), np.zeros(0, int), np.zeros(0, int))
    frame, drawn, summary = correlated(x[:, :2], x, {2: reads(4, 2, 3)}, rows=none)
    assert frame.empty
    assert len(drawn.latent) == 0
    assert summary.metrics["mean_max_correlation_2"] is None


def test_a_sample_holds_whole_documents_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlation, "TOKENS", 2000)
    n = 20_000
    index = np.stack([np.arange(n) // LENGTH, np.arange(n) % LENGTH, np.zeros(n)], axis=1)
    x = torch.arange(n, dtype=torch.float32)[:, None]
    sample = sampled_rows(lambda: iter([(x, index.astype(np.int32))]), n, 0)
    assert (np.bincount(sample.document)[np.unique(sample.document)] == LENGTH).all()
    assert 1500 < len(sample.document) < 2500
    assert bool((sample.x_nd.diff(dim=0) > 0).all())
    every = sampled_rows(lambda: iter([(x[:999], index[:999].astype(np.int32))]), 999, 0)
    assert len(every.document) == 999


def test_the_map_puts_similar_latents_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlation, "MAPPED", 9)
    x = codes(3000, 12, density=0.1)
    for i, copied in ((7, 1), (5, 1), (8, 2), (6, 0)):
        x[:, i] = x[:, copied] * 2
    x[:, 9:] *= np.random.default_rng(2).random((3000, 3)) < 0.3  # these fire less often
    _, drawn, _ = correlated(x, x, {})
    assert sorted(drawn.latent.tolist()) == list(range(9))
    place = {latent: i for i, latent in enumerate(drawn.latent.tolist())}
    for group in ((1, 5, 7), (2, 8), (0, 6)):
        where = [place[latent] for latent in group]
        assert max(where) - min(where) == len(group) - 1
    expected = np.corrcoef(x.astype(np.float64).T)[np.ix_(drawn.latent, drawn.latent)]
    assert drawn.correlation == pytest.approx(expected, abs=1e-12)
