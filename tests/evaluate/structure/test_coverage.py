"""Coverage and fragmentation of concepts, where both are planted."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from sae_repro.evaluate.metrics.structure import coverage as coverage_module
from sae_repro.evaluate.metrics.structure.coverage import coverage, half_point
from sae_repro.evaluate.metrics.structure.sample import Sample
from sae_repro.evaluate.metrics.structure.sample_halves import Half
from sae_repro.evaluate.quantiles import BINS, bin_of, quantile_edges

N = 6_000


def thresholds(values: np.ndarray) -> np.ndarray:
    histogram = np.bincount(bin_of(values), minlength=BINS)[None]
    return np.append(0.0, quantile_edges(histogram, 8)[0])


@pytest.mark.parametrize("block", [3, 512])
def test_coverage_equals_the_definition(
    planted: Callable[..., Sample], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coverage_module, "LATENTS", block)
    rng = np.random.default_rng(0)
    labels = rng.random((N, 6)) < 0.1
    fires = (labels[:, [0, 0, 1, 1, 2, 3, 4, 5]] & (rng.random((N, 8)) < 0.6)) | (
        rng.random((N, 8)) < 0.03
    )
    a = fires * rng.exponential(size=(N, 8)) * (1 + 3 * labels[:, [0, 0, 1, 1, 2, 3, 4, 5]])
    a = a.astype(np.float32)
    sample = planted(labels, a)
    measured = coverage(sample, Half.of(sample, fit=False))
    fit = sample.bank.fit
    for c in range(6):
        y = labels[:, c]
        pairs = [(k, t) for k in range(8) for t in thresholds(a[fit & (a[:, k] > 0), k])]
        on = {pair: (a[:, pair[0]] > 0) & (a[:, pair[0]] >= pair[1]) for pair in pairs}
        best = max(pairs, key=lambda pair: matthews_corrcoef(y[fit], on[pair][fit]))
        assert measured.latent_c[c] == best[0]
        assert measured.phi_c[c] == pytest.approx(matthews_corrcoef(y[~fit], on[best][~fit]))
        precise = [p for p in pairs if on[p][fit].sum() >= 10 and y[fit & on[p]].mean() >= 0.8]
        assert precise
        recall = max(precise, key=lambda pair: (y & on[pair])[fit].sum())
        assert measured.precise_latent_c[c] == recall[0]
        assert measured.recall_c[c] == pytest.approx(on[recall][~fit & y].mean())
        lowest = {k: min(t for j, t in precise if j == k) for k, _ in precise}
        union = np.any([on[pair] for pair in lowest.items()], axis=0)
        assert measured.union_latents_c[c] == len(lowest)
        assert measured.union_recall_c[c] == pytest.approx(union[~fit & y].mean())


@pytest.mark.parametrize(
    ("parts", "kept", "fragmented", "covered"),
    [(1, 1.0, False, True), (3, 1.0, False, True), (6, 1.0, True, False), (6, 0.6, False, False)],
)
def test_fragments_are_small_and_whole_together(
    planted: Callable[..., Sample], parts: int, kept: float, fragmented: bool, covered: bool
) -> None:
    rng = np.random.default_rng(1)
    labels = rng.random((N, 2)) < 0.2
    which = np.where(rng.random(N) < kept, rng.integers(parts, size=N), -1)
    a = (labels[:, :1] & (which[:, None] == np.arange(parts))).astype(float)
    sample = planted(labels, np.concatenate([a, rng.random((N, 4)) < 0.3], axis=1))
    measured = coverage(sample, Half.of(sample, fit=False))
    assert measured.fragmented_c.tolist() == [fragmented, False]
    assert measured.covered_c.tolist() == [covered, False]
    assert measured.recall_c[0] == pytest.approx(kept / parts, abs=0.04)
    assert measured.union_recall_c[0] == pytest.approx(kept, abs=0.05)
    assert measured.union_latents_c.tolist() == [parts, 0]
    assert measured.precise_latent_c[1] == -1


def test_latents_that_fire_at_random_make_no_union(planted: Callable[..., Sample]) -> None:
    """Hundreds of rare latents: a few firings each, by chance on the concept."""
    rng = np.random.default_rng(2)
    labels = rng.random((N, 1)) < 0.3
    sample = planted(labels, rng.random((N, 1500)) < 0.001, x_nd=np.zeros((N, 2)))
    measured = coverage(sample, Half.of(sample, fit=False))
    assert measured.union_latents_c[0] <= 2
    assert not measured.fragmented_c[0]


def test_the_half_point_is_where_half_are_covered() -> None:
    rng = np.random.default_rng(0)
    frequency = 10 ** rng.uniform(-3, -0.5, 600)
    covered = rng.random(600) < 1 / (1 + np.exp(-4 * (np.log10(frequency) + 1.8)))
    point = half_point(frequency, covered, 0)
    assert point.log10_frequency == pytest.approx(-1.8, abs=0.12)
    assert point.interval is not None
    low, high = point.interval
    assert low < point.log10_frequency < high
    assert high - low < 0.5
    assert half_point(frequency, covered, 0) == point
    order = rng.permutation(600)
    moved = half_point(frequency[order], covered[order], 0).log10_frequency
    assert moved == pytest.approx(point.log10_frequency, abs=1e-6)


@pytest.mark.parametrize("covered", [np.ones(50), np.zeros(50), np.arange(50) < 25])
def test_there_is_no_half_point_where_coverage_does_not_rise(covered: np.ndarray) -> None:
    point = half_point(np.logspace(-3, -1, 50), covered.astype(bool), 0)
    assert point.log10_frequency is None
    assert point.interval is None
    assert half_point(np.empty(0), np.empty(0, dtype=bool), 0).log10_frequency is None
