"""φ, κ, the score and its null, against restatements that hold nothing in common with them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import matthews_corrcoef

from sae_repro.evaluate.metrics.monosemanticity.agreement import (
    SHIFTS,
    bin_weights,
    bins_of,
    kappa,
    null_offsets,
    percentile,
    phi,
    shifted_sums,
)

flags = st.integers(1, 200).flatmap(
    lambda n: st.tuples(*(st.lists(st.booleans(), min_size=n, max_size=n) for _ in range(2)))
)


@given(flags)
@settings(max_examples=200, deadline=None)
def test_phi_is_the_matthews_correlation(pair: tuple[list[bool], list[bool]]) -> None:
    a, b = (np.array(part) for part in pair)
    value = float(phi((a & b).sum(), a.sum(), b.sum(), len(a)))
    if len(np.unique([a, b])) > 1:  # of one single value, scikit-learn warns
        assert value == pytest.approx(matthews_corrcoef(a, b), abs=1e-12)
    if 0 < a.sum() < len(a) and 0 < b.sum() < len(b):
        assert value == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-9)


def test_phi_broadcasts_and_stands_large_counts() -> None:
    n = 10**8
    both = np.array([[n // 4, 0], [n // 2, n // 8]])
    value = phi(both, np.array([[n // 2], [n // 2]]), np.array([n // 2, n // 4]), n)
    assert value[0, 0] == 0
    assert value[1, 0] == pytest.approx(1, abs=1e-12)
    assert value[0, 1] == pytest.approx(-1 / 3**0.5)
    assert value[1, 1] == 0


@given(flags)
@settings(max_examples=100, deadline=None)
def test_kappa_is_the_share_of_chances_mistakes_avoided(
    pair: tuple[list[bool], list[bool]],
) -> None:
    fires, label = (np.array(part) for part in pair)
    base = label.mean()
    if base in (0, 1) or not fires.any():
        return
    share = label[fires].mean()
    expected = 1 - (label[fires] == 0).mean() / (label == 0).mean()
    assert float(kappa(share, base)) == pytest.approx(expected, abs=1e-12)
    assert float(kappa(base, base)) == 0
    assert float(kappa(1.0, base)) == 1


def score(values: np.ndarray, label: np.ndarray, edges: np.ndarray, base: float) -> float:
    """M as it is written: a sum over bins."""
    total = 0.0
    bounds = np.unique(np.concatenate([[0.0], edges, [np.inf]]))
    for low, high in pairwise(bounds):
        chosen = (values >= low) & (values < high)
        if chosen.any():
            share = label[chosen].mean()
            total += values[chosen].sum() / values.sum() * (share - base) / (1 - base)
    return total


@given(st.integers(0, 2**32), st.integers(1, 80), st.integers(0, 6))
@settings(max_examples=150, deadline=None)
def test_weights_make_the_score_of_the_bins(seed: int, n: int, distinct: int) -> None:
    rng = np.random.default_rng(seed)
    # few distinct values and edges: equal edges and empty bins
    values = rng.integers(1, distinct + 2, n).astype(np.float32)
    edges = np.sort(rng.integers(1, 6, 4)).astype(np.float64)
    label = rng.random(n) < 0.4
    # the second of two latents: the first one's activations and edges change nothing
    latent, both = np.repeat([0, 1], n), np.concatenate([rng.random(n).astype(np.float32), values])
    bins = bins_of(latent, both, np.stack([edges / 8, edges]))
    weight = bin_weights(bins, both, 2, 5)[n:]
    assert weight.sum() == pytest.approx(1)
    by_weights = float(kappa(weight[label].sum(), 0.3))
    assert by_weights == pytest.approx(score(values.astype(float), label, edges, 0.3), abs=1e-12)


@given(st.integers(0, 2**32), st.integers(1, 400), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_shifted_sums_roll_the_labels(seed: int, n: int, p: float, q: float) -> None:
    rng = np.random.default_rng(seed)
    rows, label = np.flatnonzero(rng.random(n) < p), rng.random(n) < q
    weight = rng.random(len(rows))
    offsets = rng.integers(0, n, 7)
    expected = [weight[np.roll(label, -offset)[rows]].sum() for offset in offsets]
    sums = shifted_sums(weight, rows, np.flatnonzero(label), offsets, n)
    assert sums == pytest.approx(expected, abs=1e-12)


def test_offsets_are_starts_of_documents_and_need_201_of_them() -> None:
    starts = np.arange(SHIFTS + 1) * 17
    offsets = null_offsets(starts, np.random.default_rng(0))
    assert offsets is not None
    assert sorted(offsets) == starts[1:].tolist()
    assert null_offsets(starts[:-1], np.random.default_rng(0)) is None
    many = null_offsets(np.arange(3000) * 5, np.random.default_rng(0))
    assert many is not None
    assert len(set(many.tolist())) == SHIFTS
    assert (many % 5 == 0).all()
    assert many.min() > 0


def test_one_of_200_lies_above_the_percentile() -> None:
    scores = np.random.default_rng(0).permutation(200).astype(float)
    assert (scores > percentile(scores)).sum() == 1
