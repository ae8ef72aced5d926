"""Correlations over tokens: exact values, their null, the map, and independence of batches."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.evaluate.streaming import Batch
from sae_repro.evaluate.structure import correlation
from sae_repro.evaluate.structure.correlation import Rows, correlations, sampled_rows

LENGTH = 20


def codes(n: int, k: int, density: float = 0.1, seed: int = 0) -> np.ndarray:
    """Sparse, skewed, non-negative activations [n, k]."""
    rng = np.random.default_rng(seed)
    return ((rng.random((n, k)) < density) * rng.random((n, k)) ** 2).astype(np.float32)


def rows(x: np.ndarray, length: int = LENGTH) -> Rows:
    return Rows(torch.from_numpy(x), np.arange(len(x)) // length)


def columns(*which: int | slice) -> "correlation.Latents":
    """Latents that are columns of the activations themselves."""
    chosen = [i for part in which for i in (range(99)[part] if isinstance(part, slice) else [part])]
    return lambda x_nd: x_nd[:, chosen]


def fired(x: np.ndarray) -> np.ndarray:
    return (x > 0).sum(axis=0)


def test_values_against_numpy() -> None:
    x = codes(5000, 15)
    x[:, 3] = 0.7 * x[:, 9] + 0.3 * x[:, 3]
    frame, _, told = correlations(columns(slice(5, 15)), {5: columns(slice(0, 5))}, rows(x),
                                  fired(x)[5:], 0)  # fmt: skip
    expected = np.corrcoef(x.astype(np.float64).T)[:5, 5:]
    assert frame["correlation"].to_numpy() == pytest.approx(expected.max(axis=1), abs=1e-12)
    assert frame["latent"].tolist() == expected.argmax(axis=1).tolist()
    assert frame["latent"][3] == 4
    assert told.metrics["mean_max_correlation_5"] == pytest.approx(expected.max(axis=1).mean())
    low, high = told.intervals["mean_max_correlation_5"]
    assert low < expected.max(axis=1).mean() < high
    assert told.counts["reference_latents_5"] == 5
    assert told.counts["correlation_tokens"] == 5000
    assert told.counts["correlation_documents"] == 250


def test_a_dictionary_that_holds_the_reference_reaches_one() -> None:
    x = codes(3000, 8)
    _, _, told = correlations(columns(slice(0, 8)), {8: columns(slice(0, 8))}, rows(x), fired(x), 0)
    assert told.metrics["mean_max_correlation_8"] == pytest.approx(1.0, abs=1e-12)
    assert told.metrics["mean_max_correlation_null_8"] < 0.2


def test_order_and_scale_of_latents_do_not_matter() -> None:
    x = codes(3000, 12)
    order = np.random.default_rng(1).permutation(8)
    scale = torch.from_numpy(2.0 ** np.arange(-4, 4)).float()
    reference = {4: columns(slice(8, 12))}
    plain, _, one = correlations(columns(slice(0, 8)), reference, rows(x), fired(x)[:8], 0)
    turned, _, two = correlations(
        lambda x_nd: x_nd[:, order] * scale, reference, rows(x), fired(x)[order], 0
    )
    assert order[turned["latent"]].tolist() == plain["latent"].tolist()
    assert one.metrics == pytest.approx(two.metrics, rel=1e-12)


def test_latents_that_share_nothing_stand_at_the_null() -> None:
    """A raw maximum over many latents looks like a finding; the null shows that it is none."""
    x = codes(4000, 330, density=0.02)
    _, _, told = correlations(lambda x_nd: x_nd[:, 30:], {30: lambda x_nd: x_nd[:, :30]}, rows(x),
                              fired(x)[30:], 0)  # fmt: skip
    value, null = (told.metrics[f"mean_max_correlation{name}_30"] for name in ("", "_null"))
    assert value > 0.04
    assert value == pytest.approx(null, abs=0.01)
    few = correlations(lambda x_nd: x_nd[:, 30:40], {30: lambda x_nd: x_nd[:, :30]}, rows(x),
                       fired(x)[30:40], 0)[2]  # fmt: skip
    assert few.metrics["mean_max_correlation_null_30"] < null  # it grows with K


def test_the_null_meets_other_documents_at_the_same_distance_from_their_start() -> None:
    """The shift goes by documents: what depends on the position alone survives it."""
    n = 40 * LENGTH
    by_position = (np.arange(n) % LENGTH == 3).astype(np.float32)
    rng = np.random.default_rng(0)
    by_document = rng.standard_normal(40).repeat(LENGTH).clip(0).astype(np.float32)
    x = np.stack([by_position, by_document], axis=1)
    frame, _, _ = correlations(columns(0, 1), {2: columns(0, 1)}, rows(x), fired(x), 0)
    assert frame["correlation"].tolist() == pytest.approx([1.0, 1.0])
    assert frame["null"][0] == pytest.approx(1.0)
    assert frame["null"][1] < 0.5


def test_without_a_second_document_there_is_no_null() -> None:
    x = codes(500, 4)
    _, _, told = correlations(columns(0, 1), {2: columns(2, 3)}, rows(x, 500), fired(x)[:2], 0)
    assert told.metrics["mean_max_correlation_2"] is not None
    assert told.metrics["mean_max_correlation_null_2"] is None
    assert list(told.intervals) == ["mean_max_correlation_2"]


def test_what_does_not_vary_is_left_out_and_counted() -> None:
    x = codes(1000, 4)
    x[:, 0], x[:, 1] = 0.0, 0.1
    x[:, 2] = 0.3 * x[:, 3]
    frame, told_map, told = correlations(
        columns(1, 3), {3: columns(0, 1, 2), 7: None}, rows(x), fired(x)[[1, 3]], 0
    )
    assert frame["reference_latent"].tolist() == [2]
    assert frame["latent"].tolist() == [1]
    assert told.counts["reference_latents_left_out_3"] == 2
    assert told.metrics["mean_max_correlation_7"] is None
    assert told_map.latent.tolist() == [1]
    nothing = correlations(columns(0, 1), {3: columns(0, 1, 2)}, rows(x), fired(x)[:2], 0)
    assert nothing[0].empty
    assert nothing[2].metrics["mean_max_correlation_3"] is None
    assert nothing[1].correlation.shape == (0, 0)


@given(st.integers(1, 900), st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_neither_batches_nor_shards_change_a_bit(size: int, seed: int) -> None:
    x = codes(800, 9, density=0.3)
    index = np.stack([np.arange(800) // LENGTH, np.arange(800) % LENGTH, np.arange(800) % 7],
                     axis=1).astype(np.int32)  # fmt: skip
    shards = np.split(np.arange(800), [300, 520])
    turned = np.concatenate([shards[i] for i in np.random.default_rng(seed).permutation(3)])

    def found(order: np.ndarray, size: int) -> tuple:
        def batches() -> Iterator[Batch]:
            for start in range(0, 800, size):
                part = order[start : start + size]
                yield torch.from_numpy(x[part]), index[part]

        sample = sampled_rows(batches, 40_000, 3)
        assert 0 < len(sample.document) < 800
        return correlations(columns(slice(0, 6)), {3: columns(slice(6, 9))}, sample, fired(x)[:6],
                            0)  # fmt: skip

    (frame, drawn, told), (other_frame, other_drawn, other) = (
        found(np.arange(800), 800),
        found(turned, size),
    )
    assert told == other
    assert frame.equals(other_frame)
    assert np.array_equal(drawn.correlation, other_drawn.correlation)
    assert np.array_equal(drawn.latent, other_drawn.latent)


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
    _, found, _ = correlations(lambda x_nd: x_nd, {}, rows(x), fired(x), 0)
    assert sorted(found.latent.tolist()) == list(range(9))
    place = {latent: i for i, latent in enumerate(found.latent.tolist())}
    for group in ((1, 5, 7), (2, 8), (0, 6)):
        where = [place[latent] for latent in group]
        assert max(where) - min(where) == len(group) - 1
    expected = np.corrcoef(x.astype(np.float64).T)[np.ix_(found.latent, found.latent)]
    assert found.correlation == pytest.approx(expected, abs=1e-12)
