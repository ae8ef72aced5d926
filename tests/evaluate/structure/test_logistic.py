"""Logistic regression against scikit-learn, on problems of every kind that probes pose."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from sae_repro.evaluate.metrics.structure import logistic
from sae_repro.evaluate.metrics.structure.logistic import (
    GRADIENT,
    RIDGE,
    ROUNDING,
    _descent,
    _log_of_product,
    _scaled,
    balanced,
    cross_entropy,
    dense,
    nearly,
    newton,
)


def reference(x: np.ndarray, y: np.ndarray, w: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(β, intercept) of scikit-learn for the same loss."""
    model = LogisticRegression(C=1 / (RIDGE * w.sum()), tol=1e-10, max_iter=10_000)
    model.fit(x / scale, y, sample_weight=w)
    return np.append(model.coef_[0] / scale, model.intercept_[0])


def problem(seed: int, m: int, k: int, sparse: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.exponential(size=(m, k)) * (rng.random((m, k)) < sparse) * 10.0 ** rng.integers(-3, 4)
    y = rng.random(m) < 1 / (1 + np.exp(2 - x @ rng.standard_normal(k) / (x.std() + 1e-9)))
    y[:2] = [True, False]
    return x, y


@given(st.integers(0, 10_000), st.integers(20, 300), st.integers(1, 6), st.floats(0.05, 1))
@settings(max_examples=60, deadline=None)
def test_newton_finds_what_scikit_learn_finds(seed: int, m: int, k: int, sparse: float) -> None:
    x, y = problem(seed, m, k, sparse)
    s, w = balanced(y.astype(float), np.ones(m))
    beta, intercept = newton(x.T[None], s[None], w[None])
    scale = np.sqrt((w[:, None] * x**2).sum(axis=0) / w.sum())
    scale[scale == 0] = 1
    expected = reference(x, y, w, scale)
    solution = np.append(beta[0], intercept[0])
    assert solution * np.append(scale, 1) == pytest.approx(
        expected * np.append(scale, 1), rel=1e-3, abs=1e-3
    )


@given(st.integers(0, 10_000), st.integers(20, 300), st.integers(1, 6), st.floats(0.01, 1))
@settings(max_examples=60, deadline=None)
def test_whole_steps_end_where_guarded_ones_in_fp64_do(
    seed: int, m: int, k: int, sparse: float
) -> None:
    problems = [problem(seed + b, m, k, sparse) for b in range(3)]
    problems[2] = (problems[2][0], problems[2][0][:, 0] > 0)  # separable
    x = np.stack([x.T for x, _ in problems])
    y = np.stack([y for _, y in problems]).astype(float)
    weights = np.random.default_rng(seed).integers(0, 4, (3, m)).astype(float)
    weights[:, :2] = 1
    s, w = y * weights, weights
    *scaled, scale = _scaled(x, s, w)
    slow = _descent(*scaled, np.zeros((3, k + 1)), GRADIENT, ROUNDING)
    beta, intercept = newton(x, s, w)
    # both gradients are below 1e-9, and the ridge bends every direction of β by 1e-3
    size = scale[:, :-1]
    assert beta * size == pytest.approx(slow[:, :-1], rel=1e-5, abs=5e-6)
    assert cross_entropy(
        np.einsum("bk,bkm->bm", beta, x) + intercept[:, None], *scaled[1:]
    ) == pytest.approx(
        cross_entropy(np.einsum("bk,bkm->bm", slow, scaled[0]), *scaled[1:]),
        abs=1e-7,
    )
    loss, near, *start = nearly(x, s, w)
    exact = cross_entropy(np.einsum("bk,bkm->bm", beta, x) + intercept[:, None], *scaled[1:])
    assert loss[near] == pytest.approx(exact[near], abs=2e-3)
    for other in (start, [-part for part in start]):  # wherever it starts
        again, its = newton(x, s, w, (other[0], other[1]))
        assert again * size == pytest.approx(beta * size, rel=1e-5, abs=5e-6)
        its_loss = cross_entropy(np.einsum("bk,bkm->bm", again, x) + its[:, None], *scaled[1:])
        assert its_loss == pytest.approx(exact, abs=1e-7)


def test_problems_that_whole_steps_do_not_solve_are_solved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = problem(3, 200, 3, 0.5)
    expected = newton(x.T[None], y[None].astype(float), np.ones((1, 200)))
    monkeypatch.setattr(logistic, "WHOLE", 1)
    assert not nearly(x.T[None], y[None].astype(float), np.ones((1, 200)))[1].any()
    for a, b in zip(
        newton(x.T[None], y[None].astype(float), np.ones((1, 200))), expected, strict=True
    ):
        assert a == pytest.approx(b, rel=1e-6)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_counts_stand_for_rows_and_absent_rows_for_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((7, 3))
    rows = rng.integers(1, 9, 7).astype(float)
    positives = np.floor(rows * rng.random(7))
    once = np.repeat(np.arange(7), rows.astype(int))
    y = np.concatenate([np.arange(r) < p for r, p in zip(rows, positives, strict=True)])
    long = newton(x[once].T[None], y[None].astype(float), np.ones((1, len(once))))
    padded = [np.concatenate([part, np.zeros(5)])[None] for part in (positives, rows)]
    short = newton(np.concatenate([x, np.full((5, 3), 0.7)]).T[None], *padded)
    for a, b in zip(long, short, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)


def test_problems_side_by_side_are_problems_alone() -> None:
    parts = [problem(seed, 200, 3, 0.5) for seed in range(6)]
    x = np.stack([x.T for x, _ in parts])
    s, w = balanced(np.stack([y for _, y in parts]).astype(float), np.ones((6, 200)))
    together = newton(x, s, w)
    for b in range(6):
        alone = newton(x[b : b + 1], s[b : b + 1], w[b : b + 1])
        # not by rounding either: a problem's last step does not wait for another's
        assert np.array_equal(together[0][b], alone[0][0])
        assert np.array_equal(together[1][b], alone[1][0])


@pytest.mark.parametrize("share", [0.5, 0.002])
def test_separable_and_silent_features_stay_finite(share: float) -> None:
    y = np.arange(4000) < share * 4000
    x = np.stack([50.0 * y, np.zeros(4000)], axis=1)
    for s, w in ((y.astype(float), np.ones(4000)), balanced(y.astype(float), np.ones(4000))):
        beta, intercept = newton(x.T[None], s[None], w[None])
        assert np.isfinite(beta).all()
        assert beta[0, 1] == 0
        eta = x @ beta[0] + intercept[0]
        assert ((eta > 0) == y).all() or share < 0.5


def test_balanced_halves_weigh_as_much() -> None:
    s, w = balanced(np.array([3.0, 0.0]), np.array([4.0, 9.0]))
    assert s.sum() == pytest.approx(0.5)
    assert w.sum() == pytest.approx(1)
    assert (w - s) == pytest.approx([0.05, 0.45])


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_cross_entropy_is_the_log_loss(seed: int) -> None:
    rng = np.random.default_rng(seed)
    eta, y = 4 * rng.standard_normal(50), rng.random(50) < 0.3
    y[:2] = [True, False]
    s, w = balanced(y.astype(float), np.ones(50))
    expected = log_loss(y, 1 / (1 + np.exp(-eta)), sample_weight=w)
    assert cross_entropy(eta, s, w) == pytest.approx(expected, rel=1e-6)


def test_the_dense_probe_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 32)) * np.linspace(0.2, 3, 32)
    y = rng.random(2000) < 1 / (1 + np.exp(1 - x @ rng.standard_normal(32)))
    scale = np.full(32, np.sqrt((x**2).mean()))
    expected = reference(x, y, np.ones(2000), scale)
    beta, intercept = dense(x, y)
    assert np.append(beta, intercept) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    # units do not matter, the direction does
    assert dense(1000 * x, y)[0] * 1000 == pytest.approx(beta, rel=1e-6)


@pytest.mark.parametrize("n", [0, 5, 8, 101])
@pytest.mark.parametrize("least", [1.0, 1e-3, 1e-60, 0.0])
def test_logarithms_of_probabilities_are_summed(n: int, least: float) -> None:
    p = np.random.default_rng(n).random(n) ** 3
    p[: n // 2] = least
    expected = np.log(np.maximum(p, 1e-300)).sum()
    assert _log_of_product(p) == pytest.approx(expected, rel=1e-13)
