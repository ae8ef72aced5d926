"""Counts above activation thresholds: exact, and from the fit half alone."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from sae_repro.evaluate.metrics.monosemanticity.counts import THRESHOLDS, at_thresholds
from sae_repro.evaluate.quantiles import BINS, bin_of, quantile_edges

N, K, C = 300, 4, 3


@given(st.integers(0, 200), st.floats(0, 1))
@settings(deadline=None, max_examples=30)
def test_counts_are_those_of_the_definition(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    a = (rng.exponential(size=(K, N)) * (rng.random((K, N)) < density)).astype(np.float32)
    a[1] = 0
    labels, fit = rng.random((N, C)) < 0.3, rng.random(N) < 0.5
    levels = at_thresholds(csr_array(a), fit, csr_array(labels.astype(np.int32)))
    assert (levels.threshold_kt[:, 0] == 0).all()
    for k in range(K):
        on_fit = a[k, fit]
        counts = np.bincount(bin_of(on_fit[on_fit > 0]), minlength=BINS)
        assert levels.histogram_kb[k].tolist() == counts.tolist()
        edges = quantile_edges(counts[None], THRESHOLDS)[0]
        assert levels.threshold_kt[k, 1:].tolist() == edges.tolist()
        for t, threshold in enumerate(levels.threshold_kt[k]):
            reached = (a[k] > 0) & (a[k] >= threshold) & fit
            assert levels.fires_kt[k, t] == reached.sum()
            assert levels.both_ktc[k, t].tolist() == labels[reached].sum(axis=0).tolist()


def test_counts_do_not_depend_on_the_test_half() -> None:
    rng = np.random.default_rng(0)
    a = rng.exponential(size=(K, N)).astype(np.float32)
    labels, fit = rng.random((N, C)) < 0.3, rng.random(N) < 0.5
    other_a, other_labels = a.copy(), labels.copy()
    other_a[:, ~fit] *= 100
    other_labels[~fit] ^= True
    one = at_thresholds(csr_array(a), fit, csr_array(labels.astype(np.int32)))
    two = at_thresholds(csr_array(other_a), fit, csr_array(other_labels.astype(np.int32)))
    for name in ("histogram_kb", "threshold_kt", "fires_kt", "both_ktc"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
