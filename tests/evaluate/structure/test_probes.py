"""Sparse probes against dense restatements of them with scikit-learn."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from sae_repro.evaluate.metrics.structure import probes
from sae_repro.evaluate.metrics.structure import sample_halves as halves_module
from sae_repro.evaluate.metrics.structure.logistic import RIDGE, balanced, nearly
from sae_repro.evaluate.metrics.structure.probes import (
    probe_auc,
    probe_loss,
    ranked,
    roc_area,
    split_sets,
)
from sae_repro.evaluate.metrics.structure.sample import Sample
from sae_repro.evaluate.metrics.structure.sample_halves import Halves, binned, design

N, K, C = 4_000, 14, 5


def mixed(planted: Callable[..., Sample]) -> Sample:
    """Latents that have something to do with the concepts, and some that have not."""
    rng = np.random.default_rng(0)
    labels = rng.random((N, C)) < 0.15
    fires = rng.random((N, K)) < 0.1
    fires[:, :C] |= labels & (rng.random((N, C)) < 0.4)
    fires[:, C : 2 * C] |= labels & (rng.random((N, C)) < 0.2)
    a = fires * rng.exponential(size=(N, K)) * (1 + np.arange(K) % 3)
    a[:, K - 1] = 0
    return planted(labels, a)


def dense_halves(sample: Sample) -> tuple[np.ndarray, ...]:
    a, y, fit = sample.a_nk.toarray().astype(float), sample.bank.labels.toarray(), sample.bank.fit
    return a[fit], y[fit], a[~fit], y[~fit]


def fitted(x: np.ndarray, y: np.ndarray, weight: str | None) -> LogisticRegression:
    """The balanced or plain probe, on columns over their weighted root mean square."""
    w = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum()) if weight else np.full(len(y), 1 / len(y))
    model = LogisticRegression(C=1 / RIDGE, tol=1e-9, max_iter=5000)
    scale = np.sqrt((w[:, None] * x**2).sum(0))
    model.scale_ = np.where(scale > 0, scale, 1)
    return model.fit(x / model.scale_, y, sample_weight=w)


def score(model: LogisticRegression, x: np.ndarray) -> np.ndarray:
    return model.decision_function(x / model.scale_)


@given(st.integers(0, 6), st.integers(1, 20), st.integers(0, 25), st.integers(0, 999))
@settings(max_examples=80, deadline=None)
def test_ranks_are_those_of_a_stable_sort(c: int, k: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 4, (c, k)).astype(float)  # many equals
    score[rng.random((c, k)) < 0.1] = np.inf
    assert np.array_equal(ranked(score, m), np.argsort(-score, axis=1, kind="stable")[:, :m])


@pytest.mark.parametrize("entries", [1, 50_000])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_auc_of_probes(
    planted: Callable[..., Sample], k: int, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halves_module, "ENTRIES", entries)
    sample = mixed(planted)
    auc = probe_auc(Halves.of(sample), (1, k))[k]
    a, y, a_test, y_test = dense_halves(sample)
    for c in range(C):
        difference = a[y[:, c]].mean(0) - a[~y[:, c]].mean(0)
        chosen = np.argsort(-np.abs(difference))[:k]
        model = fitted(a[:, chosen], y[:, c], "balanced")
        expected = roc_auc_score(y_test[:, c], score(model, a_test[:, chosen]))
        assert auc[c] == pytest.approx(expected, abs=1e-3)


def test_loss_is_that_of_the_best_of_all_latents(planted: Callable[..., Sample]) -> None:
    sample = mixed(planted)
    loss, latent = probe_loss(Halves.of(sample))
    a, y, a_test, y_test = dense_halves(sample)
    for c in range(C):
        models = [fitted(a[:, [k]], y[:, c], "balanced") for k in range(K)]

        def balanced_loss(k: int, x: np.ndarray, truth: np.ndarray) -> float:
            w = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum())
            p = 1 / (1 + np.exp(-score(models[k], x[:, [k]])))  # noqa: B023
            return log_loss(truth, p, sample_weight=w)

        best = min(range(K), key=lambda k: balanced_loss(k, a, y[:, c]))
        assert latent[c] == best
        assert loss[c] == pytest.approx(balanced_loss(best, a_test, y_test[:, c]), abs=1e-4)


def test_bounds_lie_just_below_the_losses(planted: Callable[..., Sample]) -> None:
    half = Halves.of(mixed(planted)).fit
    concept, latent = (part.ravel() for part in np.indices((C, K)))
    bounds, losses = [], []
    for b in range(len(latent)):
        latents, concepts = latent[b : b + 1], concept[b : b + 1]
        few, all_rows = (
            binned(half, latents, concepts),
            design(half, latents[:, None], concepts),
        )
        for total in ("positives_bm", "rows_bm"):
            assert getattr(few, total).sum() == getattr(all_rows, total).sum()
        of_both = [
            (probe.x_bkm[0, 0] @ probe.positives_bm[0], probe.x_bkm[0, 0] @ probe.rows_bm[0])
            for probe in (few, all_rows)
        ]
        assert of_both[0] == pytest.approx(of_both[1])
        for probe, into in ((few, bounds), (all_rows, losses)):
            into.append(nearly(probe.x_bkm, *balanced(probe.positives_bm, probe.rows_bm)).loss[0])
    # but for fp32 and the ridge
    assert np.all(np.array(bounds) <= np.array(losses) + 1e-4)
    assert bounds == pytest.approx(losses, abs=5e-3)


def test_the_choice_does_not_hang_on_the_bounds(
    planted: Callable[..., Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = Halves.of(mixed(planted))
    loss, latent = probe_loss(halves)
    monkeypatch.setattr(probes, "SLACK", np.inf)  # all are fitted
    expected = probe_loss(halves)
    assert latent.tolist() == expected[1].tolist()
    assert loss == pytest.approx(expected[0], rel=1e-9)


def test_contrasts_match_their_definitions(planted: Callable[..., Sample]) -> None:
    sample = mixed(planted)
    contrast = Halves.of(sample).contrast
    a, y, _, _ = dense_halves(sample)
    for c in range(C):
        on, off = a[y[:, c]], a[~y[:, c]]
        difference = on.mean(0) - off.mean(0)
        assert contrast.difference_ck[c] == pytest.approx(difference, abs=1e-12)
        assert contrast.both_ck[c].tolist() == (on > 0).sum(0).tolist()
        with np.errstate(invalid="ignore"):
            expected = np.nan_to_num(difference**2 / (on.var(0) + off.var(0)))
        assert contrast.separation_ck[c] == pytest.approx(expected, rel=1e-9)
        precision = (on > 0).sum(0) / np.maximum((a > 0).sum(0), 1)
        assert contrast.precision_ck[c] == pytest.approx(precision)


counts = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4), st.integers(0, 4)), min_size=1)


@given(counts)
@settings(max_examples=200, deadline=None)
def test_area_counts_ties_as_halves(entries: list[tuple[int, int, int]]) -> None:
    value, positives, negatives = (np.array(part) for part in zip(*entries, strict=True))
    on, off = (np.repeat(value.astype(float), part) for part in (positives, negatives))
    silent = int((on == 0).sum()), int((off == 0).sum())
    area = roc_area(on[on != 0], off[off != 0], silent)
    truth = np.repeat([True, False], [len(on), len(off)])
    if len(on) and len(off):
        assert roc_area(on, off) == area
        expected = roc_auc_score(truth, np.concatenate([on, off]))
        assert area == pytest.approx(expected)
    else:
        assert np.isnan(area)


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_a_concept_in_equal_parts_has_as_many_latents(
    planted: Callable[..., Sample], parts: int
) -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((N, 2)) < 0.2
    which = rng.integers(parts, size=N)
    a = np.zeros((N, parts + 3))
    for part in range(parts):
        a[:, part] = labels[:, 0] & (which == part)
    a[:, parts:] = rng.random((N, 3)) * (rng.random((N, 3)) < 0.1)
    halves = Halves.of(planted(labels, a))
    order = ranked(np.abs(halves.contrast.difference_ck[:1]), 10)
    split = split_sets(halves, np.array([0]), list(order))[0]
    assert sorted(split.latents) == list(range(parts))
    assert split.f1 == pytest.approx(1)
    assert len(split_sets(halves, np.array([0]), [np.empty(0, dtype=np.int64)])[0].latents) == 0


def test_a_split_set_ends_where_one_more_brings_little(planted: Callable[..., Sample]) -> None:
    """The stopping rule, and F1 on test, as a plain loop over scikit-learn says."""
    sample = mixed(planted)
    halves = Halves.of(sample)
    order = ranked(np.abs(halves.contrast.difference_ck), probes.MOST)
    splits = split_sets(halves, np.arange(C), list(order))
    a, y, a_test, y_test = dense_halves(sample)
    for c, split in enumerate(splits):
        seen, unseen = [], []
        for k in range(1, 11):
            model = fitted(a[:, order[c, :k]], y[:, c], None)
            seen.append(f1_score(y[:, c], score(model, a[:, order[c, :k]]) > 0))
            unseen.append(f1_score(y_test[:, c], score(model, a_test[:, order[c, :k]]) > 0))
        stop = next((k for k in range(1, 10) if seen[k] - seen[k - 1] < 0.03), 10)
        assert len(split.latents) == stop
        assert split.f1 == pytest.approx(unseen[stop - 1], abs=1e-3)
