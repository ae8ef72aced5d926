"""Quantiles from integer counts: within an eighth of an octave, and mergeable."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.evaluate.quantiles import (
    BINS,
    Groups,
    bin_of,
    least_of_largest,
    quantile_edges,
    upper_edge,
)


@given(
    st.lists(st.floats(2.0**-30, 2.0**30, width=32), min_size=1, max_size=300), st.integers(2, 10)
)
@settings(max_examples=100, deadline=None)
def test_quantile_edges_are_within_an_eighth_octave(values: list[float], n: int) -> None:
    v = np.array(values, dtype=np.float32)
    counts = np.bincount(bin_of(v), minlength=BINS)[None]
    edges = quantile_edges(counts, n)[0]
    for i, edge in enumerate(edges, 1):
        exact = np.sort(v)[max(0, int(np.ceil(len(v) * i / n)) - 1)]
        assert exact < edge <= exact * 1.1251
    assert (np.diff(edges) >= 0).all()


def test_bins_hold_their_values() -> None:
    v = np.float32([1.0, 1.124, 1.126, 1.99, 2.0, 3e-20, 1e20])
    bins = bin_of(v)
    assert bins[0] == bins[1] < bins[2] <= bins[3] < bins[4]
    assert (v[:5] < upper_edge(bins[:5])).all()
    assert bins[5] == 0
    assert bins[6] == BINS - 1


@given(
    st.lists(
        st.lists(st.floats(2.0**-45, 2.0**45, width=32), min_size=0, max_size=60),
        min_size=1, max_size=4,
    ),
    st.integers(2, 10),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_a_values_bin_decides_its_group(rows: list[list[float]], n: int) -> None:
    values = [np.array(row, dtype=np.float32) for row in rows]
    counts = np.stack([np.bincount(bin_of(v), minlength=BINS) for v in values])
    edges = quantile_edges(counts, n)
    groups = Groups(edges)
    for k, v in enumerate(values):
        expected = (v[:, None].astype(np.float64) >= edges[k]).sum(axis=1)
        within = v < 2.0**40  # beyond, all share a bin
        assert (groups.of(np.full(len(v), k), bin_of(v)) == expected)[within].all()
        if within.all():
            assert groups.counts(counts)[k].tolist() == np.bincount(expected, minlength=n).tolist()


@given(st.lists(st.floats(2.0**-45, 2.0**45, width=32), min_size=0, max_size=60), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_the_largest_values_lie_above_their_bound(values: list[float], m: int) -> None:
    v = np.array(values, dtype=np.float32)
    [bound] = least_of_largest(np.bincount(bin_of(v), minlength=BINS)[None], m)
    assert (v >= bound).sum() >= min(m, len(v))
    if bound:  # nor is it lower than it must be
        assert (v >= bound * 1.126).sum() < m or bound >= 2.0**39
