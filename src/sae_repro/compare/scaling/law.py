"""L(K, T) = E + A/K^α + B/T^β, fitted to many resampled tables of losses at once.

Approach 3 of J. Hoffmann et al. 2022 (arXiv:2203.15556) by variable projection (G. Golub and V.
Pereyra 1973; for this law E. Czech et al. 2026, arXiv:2603.22339): E, A and B ≥ 0 follow from α and
β by non-negative least squares, so that two numbers are searched for and no start has to be chosen.
The search is a grid and then Newton steps that end by a size of step, not by a number of them: an
optimiser that stopped early, and intervals that were too narrow, are what T. Besiroglu et al. 2024
(arXiv:2404.10102) found in the first such fit.

Sums go over the cells in their order, elementwise over the resamplings: no bits depend on LAPACK.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

EXPONENTS = (0.02, 4.0)
"""Where α and β are searched; an exponent at an end is not identified."""
GRID = 12
"""Points of the first grid along each exponent, in equal ratios."""
SMALLEST_STEP = 1e-7
"""Of log α and log β, at which a search has converged."""
MOST_ROUNDS = 200
GAIN = 1e-9
"""By which a step lowers the squares, of them, or it is not taken."""
ROUNDING = 1e-28
"""Of Σ of the squared weighted losses: squares that differ by less do so by rounding."""
PARAMETERS = 5
"""E, A, α, B, β: a fit needs more cells than that."""
NEIGHBOURS = [shift for shift in product((-1, 0, 1), repeat=2) if shift != (0, 0)]


@dataclass(frozen=True)
class Law:
    """Laws, one per table of losses: every field [R]."""

    irreducible: Floats
    """E, the loss that no width and no number of tokens removes."""
    a: Floats
    alpha: Floats
    b: Floats
    beta: Floats
    squares: Floats
    """Σ of the squared weighted residuals."""
    converged: npt.NDArray[np.bool_]

    def at(self, x: float | Floats, t: float | Floats) -> Floats:
        """The loss at K = `x` and T = `t`, which broadcast against the laws [R]."""
        by_width = self.a * np.exp(-self.alpha * np.log(x))
        loss: Floats = self.irreducible + by_width + self.b * np.exp(-self.beta * np.log(t))
        return loss

    @property
    def alpha_found(self) -> npt.NDArray[np.bool_]:
        """Whether α is inside the search, and the loss falls with K at all."""
        return _inside(self.alpha) & (self.a > 0)

    @property
    def beta_found(self) -> npt.NDArray[np.bool_]:
        """Whether β is inside the search, and the loss falls with T at all."""
        return _inside(self.beta) & (self.b > 0)


def _inside(exponent: Floats) -> npt.NDArray[np.bool_]:
    low, high = EXPONENTS
    inside: npt.NDArray[np.bool_] = (exponent > low * 1.001) & (exponent < high / 1.001)
    return inside


@dataclass(frozen=True)
class _Problem:
    """Tables of losses [n, R] of n cells, each residual weighed [n, 1]."""

    log_x: Floats
    log_t: Floats
    loss: Floats
    weight: Floats

    def solved(self, logs: Floats) -> tuple[Floats, Floats]:
        """(squares [R], coefficients [3, R] of 1, x^−α and t^−β) at log α, log β [2, R or 1]."""
        alpha, beta = np.exp(logs)
        columns = [
            np.broadcast_to(self.weight, (len(self.weight), alpha.shape[0])),
            self.weight * np.exp(-alpha * self.log_x),
            self.weight * np.exp(-beta * self.log_t),
        ]
        return non_negative(columns, self.weight * self.loss)


def fit(x: Floats, t: Floats, loss: Floats, weight: Floats) -> Law:
    """The law of each table of `loss` [R, n] at widths `x` and tokens `t` [n].

    `weight` [n] is that of each cell's residual: 1 / loss makes residuals relative. All positive.
    """
    middle_x, middle_t = (float(np.log(v).mean()) for v in (x, t))
    problem = _Problem(
        (np.log(x) - middle_x)[:, None],
        (np.log(t) - middle_t)[:, None],
        np.ascontiguousarray(loss.T),
        weight[:, None],
    )
    logs, squares, converged = _searched(problem)
    _, (irreducible, a, b) = problem.solved(logs)
    alpha, beta = np.exp(logs)
    return Law(
        irreducible=irreducible,
        a=a * np.exp(alpha * middle_x),
        alpha=alpha,
        b=b * np.exp(beta * middle_t),
        beta=beta,
        squares=squares,
        converged=converged,
    )


def non_negative(columns: list[Floats], y: Floats) -> tuple[Floats, Floats]:
    """Least squares of `y` [n, R] on three `columns` [n, R or 1] with coefficients ≥ 0 [3, R].

    Of the solutions on every set of columns, the best that has no negative coefficient; which sets
    are tried does not depend on the data, as an active-set method's do.
    """
    runs = y.shape[1]
    best = _total(np.square(y))
    rounding = ROUNDING * best
    coefficients = np.zeros((3, runs))
    for size in (1, 2, 3):
        for chosen in combinations(range(3), size):
            squares, found = least_squares([columns[i] for i in chosen], y)
            better = (found >= 0).all(axis=0) & (squares < best - rounding)
            best = np.where(better, squares, best)
            full = np.zeros((3, runs))
            full[list(chosen)] = found
            coefficients = np.where(better, full, coefficients)
    return best, coefficients


def least_squares(columns: list[Floats], y: Floats) -> tuple[Floats, Floats]:
    """(squares [R], coefficients [columns, R]) by modified Gram-Schmidt; NaN where dependent."""
    basis: list[Floats] = []
    upper: list[list[Floats]] = []
    for column in columns:
        left, above = column, []
        for q in basis:
            above.append(_total(q * left))
            left = left - q * above[-1]
        norm = np.sqrt(_total(np.square(left)))
        with np.errstate(divide="ignore", invalid="ignore"):
            basis.append(left / norm)
        upper.append([*above, norm])
    rest, projections = y, []
    for q in basis:
        projections.append(_total(q * rest))
        rest = rest - q * projections[-1]
    found: list[Floats] = [np.zeros(0)] * len(columns)
    for i in reversed(range(len(columns))):
        value = projections[i]
        for j in range(i + 1, len(columns)):
            value = value - upper[j][i] * found[j]
        with np.errstate(divide="ignore", invalid="ignore"):
            found[i] = value / upper[i][i]
    return _total(np.square(rest)), np.stack(found)


def _total(values: Floats) -> Floats:
    """Σ over the cells [n, R], in their order: of one table as of many."""
    total: Floats = np.cumsum(values, axis=0)[-1]
    return total


def _searched(problem: _Problem) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """(log α and log β [2, R], squares [R], whether each search converged [R])."""
    low, high = np.log(EXPONENTS)
    points = np.linspace(low, high, GRID)
    runs = problem.loss.shape[1]
    logs, squares = np.zeros((2, runs)), np.full(runs, np.inf)
    for point in product(points, points):
        at = np.array(point)[:, None]
        found, _ = problem.solved(at)
        better = found < squares
        logs, squares = np.where(better, at, logs), np.where(better, found, squares)
    rounding = ROUNDING * _total(np.square(problem.weight * problem.loss))
    step = np.full(runs, (high - low) / (GRID - 1))
    for _ in range(MOST_ROUNDS):
        open_ = np.flatnonzero(step >= SMALLEST_STEP)
        if not len(open_):
            break
        part = _Problem(problem.log_x, problem.log_t, problem.loss[:, open_], problem.weight)
        moved, lower = logs[:, open_], squares[open_]
        for at, tried in _candidates(part, logs[:, open_], squares[open_], step[open_]):
            better = tried < lower - np.maximum(GAIN * squares[open_], rounding[open_])
            moved, lower = np.where(better, at, moved), np.where(better, tried, lower)
        step[open_] = np.where(lower < squares[open_], step[open_], step[open_] / 4)
        logs[:, open_], squares[open_] = moved, lower
    return logs, squares, step < SMALLEST_STEP


def _candidates(
    problem: _Problem, logs: Floats, squares: Floats, step: Floats
) -> Iterator[tuple[Floats, Floats]]:
    """The eight neighbours of each point [2, R], and the minimum of the parabola through them.

    Each with its squares [R].
    """
    low, high = np.log(EXPONENTS)
    around = {}
    for shift in NEIGHBOURS:
        at = np.clip(logs + np.array(shift)[:, None] * step, low, high)
        around[shift], _ = problem.solved(at)
        yield at, around[shift]
    slope_a, slope_b = (around[1, 0] - around[-1, 0]) / 2, (around[0, 1] - around[0, -1]) / 2
    aa = around[1, 0] - 2 * squares + around[-1, 0]
    bb = around[0, 1] - 2 * squares + around[0, -1]
    ab = (around[1, 1] - around[1, -1] - around[-1, 1] + around[-1, -1]) / 4
    with np.errstate(divide="ignore", invalid="ignore"):
        determinant = aa * bb - ab * ab
        newton = np.stack([ab * slope_b - bb * slope_a, ab * slope_a - aa * slope_b]) / determinant
    convex = (determinant > 0) & (aa > 0) & np.isfinite(newton).all(axis=0)
    at = np.clip(logs + np.where(convex, newton, 0.0) * step, low, high)
    yield at, problem.solved(at)[0]
