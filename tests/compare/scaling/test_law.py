"""Scaling laws on surfaces whose law is known."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from sae_repro.compare.scaling.fitted import Table, fitted
from sae_repro.compare.scaling.isoflop import Cost, by_parabola, optimum, vertex
from sae_repro.compare.scaling.law import Floats, Law, fit, non_negative

WIDTHS, TOKENS = 64 * 2.0 ** np.arange(5), 62_500 * 2.0 ** np.arange(5)
X, T = np.repeat(WIDTHS, 5), np.tile(TOKENS, 5)
TRUE = {"irreducible": 0.03, "a": 2.0, "alpha": 0.6, "b": 30.0, "beta": 0.4}


def law_of(irreducible: float, a: float, alpha: float, b: float, beta: float) -> Law:
    one = [np.array([v]) for v in (irreducible, a, alpha, b, beta, 0.0)]
    return Law(*one, converged=np.array([True]))


def noisy(seed: int, sd: float = 0.005, seeds: int = 3) -> Table:
    """25 cells of the true law, each of a few SAEs that scatter about it."""
    rng = np.random.default_rng(seed)
    loss = law_of(**TRUE).at(X, T)
    values = loss[:, None] * np.exp(sd * rng.standard_normal((25, seeds)))
    return Table(tuple(f"cell-{i}" for i in range(25)), X, T, tuple(values))


@given(
    st.floats(0.001, 0.2),
    st.floats(0.5, 5),
    st.floats(0.3, 1.5),
    st.floats(0.5, 5),
    st.floats(0.2, 1.2),
)
@settings(max_examples=10, deadline=None)
def test_exponents_are_found_within_one_percent(
    irreducible: float, a: float, alpha: float, b: float, beta: float
) -> None:
    loss = law_of(irreducible, a * 64**alpha, alpha, b * 62_500**beta, beta).at(X, T)
    found = fit(X, T, loss[None], 1 / loss)
    assert found.converged.all() and found.alpha_found.all() and found.beta_found.all()
    assert found.alpha[0] == pytest.approx(alpha, rel=0.01)
    assert found.beta[0] == pytest.approx(beta, rel=0.01)
    assert found.at(1e5, 1e9)[0] == pytest.approx(
        law_of(irreducible, a * 64**alpha, alpha, b * 62_500**beta, beta).at(1e5, 1e9)[0], rel=0.01
    )


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_coefficients_are_those_of_scipys_nnls(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix, y = rng.standard_normal((9, 3)), rng.standard_normal((9, 2))
    squares, found = non_negative([column[:, None] for column in matrix.T], y)
    for run in range(2):
        expected, norm = nnls(matrix, y[:, run])
        np.testing.assert_allclose(found[:, run], expected, atol=1e-9)
        assert squares[run] == pytest.approx(norm**2, abs=1e-9)


def test_a_table_is_fitted_as_it_is_alone() -> None:
    losses = np.stack([noisy(seed).means for seed in range(4)])
    together = fit(X, T, losses, 1 / losses[0])
    for i in range(4):
        alone = fit(X, T, losses[i : i + 1], 1 / losses[0])
        assert alone.alpha[0] == together.alpha[i] and alone.squares[0] == together.squares[i]


def test_what_does_not_fall_has_no_exponent() -> None:
    rising = 0.1 + 3.0 * T**-0.3 + 1e-4 * X
    found = fit(X, T, rising[None], 1 / rising)
    assert not found.alpha_found.any() and found.beta_found.all()


def coverage(draws: int, resamplings: int) -> dict[str, float]:
    """How often 95 % intervals of noisy tables hold the truth, and the held-out largest cell."""
    inside = dict.fromkeys([*TRUE, "held out"], 0)
    for seed in range(draws):
        table = noisy(seed)
        one = fitted(table.without(24), resamplings, seed, "test")
        assert one is not None
        for name, value in TRUE.items():
            low, high = np.quantile(getattr(one.resampled, name), [0.025, 0.975])
            inside[name] += bool(low <= value <= high)
        _, (low, high) = one.predicted(X[24], T[24], 3)
        inside["held out"] += bool(low <= table.means[24] <= high)
    return {name: count / draws for name, count in inside.items()}


def test_intervals_of_a_few_draws_hold_the_truth() -> None:
    held = coverage(draws=5, resamplings=60)
    assert min(held.values()) >= 0.6, held


@pytest.mark.slow
def test_intervals_hold_the_truth_in_nine_of_ten_draws() -> None:
    held = coverage(draws=200, resamplings=100)
    assert min(held.values()) >= 0.9, held


def test_a_law_that_does_not_hold_widens_its_intervals() -> None:
    exact = noisy(0, sd=0.001)
    bent = Table(
        exact.names,
        X,
        T,
        tuple(v * (1 + 0.05 * (i % 2)) for i, v in enumerate(exact.seeds)),
    )
    fits = [fitted(table, 100, 0, "test") for table in (exact, bent)]
    assert fits[0] is not None and fits[1] is not None
    assert fits[0].misfit < 2 < 10 < fits[1].misfit
    widths = [np.ptp(one.predicted(4096, 4e6, 3)[1]) for one in fits]
    assert widths[1] > 5 * widths[0]


def test_too_few_cells_have_no_law() -> None:
    table = noisy(0)
    for _ in range(20):
        table = table.without(0)
    assert fitted(table, 100, 0, "test") is None


def iso(law: Law, compute: float, widest: float, off: float = 1.0) -> tuple[Floats, Floats]:
    """(log K, losses) at C = 6 K T: widths about `off` times K*, up to a factor `widest`."""
    best, _, _ = optimum(law, Cost(0, 6), compute)
    x = best[0] * off * np.geomspace(1 / widest, widest, 15)
    return np.log(x), law.at(x, compute / (6 * x))[None]


SYMMETRIC, ASYMMETRIC = law_of(1.7, 400, 0.31, 400, 0.31), law_of(1.7, 400, 0.465, 400, 0.155)
COMPUTES = (1e17, 1e19, 1e21)


def ratios(law: Law, widest: float, drift: float = 1.0) -> list[float]:
    """K* of Approach 2 over the law's, at each compute; the widths drift off K* on the way."""
    of = []
    for number, compute in enumerate(COMPUTES):
        best, _, _ = optimum(law, Cost(0, 6), compute)
        found = vertex(*iso(law, compute, widest, drift**number))
        of.append(float(np.exp(found[0]) / best[0]))
    return of


def test_the_optimum_is_that_of_the_closed_form() -> None:
    """Hoffmann et al. 2022, equation 4, at C = 6 K T."""
    for compute in COMPUTES:
        x, t, loss = optimum(ASYMMETRIC, Cost(0, 6), compute)
        g = (0.465 * 400 / (0.155 * 400)) ** (1 / (0.465 + 0.155))
        assert x[0] == pytest.approx(g * (compute / 6) ** (0.155 / 0.62), rel=1e-6)
        assert 6 * x[0] * t[0] == pytest.approx(compute)
        assert loss[0] == ASYMMETRIC.at(x, t)[0]


def test_approach_2_is_biased_where_exponents_differ() -> None:
    """Czech et al. 2026: none on a symmetric surface; else it grows with the width of the grid."""
    assert ratios(SYMMETRIC, 8) == pytest.approx([1, 1, 1], abs=1e-6)
    narrow, wide = ratios(ASYMMETRIC, 2), ratios(ASYMMETRIC, 8)
    for near, far in zip(narrow, wide, strict=True):
        assert 0.01 < abs(np.log(near)) < abs(np.log(far))
    # one factor at every compute: the exponent is right, the width is not
    assert np.ptp(np.log(wide)) < 1e-6
    drifting = ratios(ASYMMETRIC, 8, drift=1.5)
    assert np.ptp(np.log(drifting)) > 0.05


def test_the_law_has_no_bias_on_the_same_cells() -> None:
    cells = [iso(ASYMMETRIC, compute, 8, 1.5**n) for n, compute in enumerate(COMPUTES)]
    x = np.concatenate([np.exp(log_x) for log_x, _ in cells])
    t = np.concatenate([c / (6 * np.exp(log_x)) for c, (log_x, _) in zip(COMPUTES, cells)])  # noqa: B905
    loss = np.concatenate([losses[0] for _, losses in cells])
    found = fit(x, t, loss[None], 1 / loss)
    for compute in COMPUTES:
        best = optimum(found, Cost(0, 6), compute)[0][0]
        assert best == pytest.approx(optimum(ASYMMETRIC, Cost(0, 6), compute)[0][0], rel=1e-3)


def test_parabolas_need_three_widths_and_a_minimum_among_them() -> None:
    loss = law_of(**TRUE).at(X, T)[None]
    cost = Cost(0, 6)
    assert np.isnan(by_parabola(X, T, loss, cost, 6 * 64 * 62_500)).all()
    hill = (9 - (np.log(X) - np.log(256)) ** 2)[None]
    assert np.isnan(by_parabola(X, T, hill, cost, 6 * 256 * 250_000)).all()
    assert np.isfinite(by_parabola(X, T, 10 - hill, cost, 6 * 256 * 250_000)).all()


def test_no_order_of_cells_changes_what_is_found() -> None:
    table = noisy(3)
    order = np.random.default_rng(0).permutation(25)
    loss = table.means
    straight, shuffled = (
        fit(X[i], T[i], loss[i][None], 1 / loss[i]) for i in (np.arange(25), order)
    )
    for name, other in itertools.product(("alpha", "beta", "irreducible"), [shuffled]):
        assert getattr(other, name)[0] == pytest.approx(getattr(straight, name)[0], rel=1e-4)
