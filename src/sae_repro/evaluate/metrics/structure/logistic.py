"""Logistic regressions with a ridge, in fp64: of few features by Newton's method, many at once; of
many features by L-BFGS.

The loss is Σ_n [w log(1 + e^η) − s η] / Σ_n w + ½ RIDGE ‖β‖², the intercept free: w is a row's
weight and s the part of it that is positive. Columns are first divided by their root mean square,
so that the ridge does not depend on units.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
"""Of fp32 or fp64."""
Floats = npt.NDArray[np.float64]

RIDGE = 1e-3
STEPS, GRADIENT = 50, 1e-9
HALVINGS, ROUNDING = 30, 1e-12
WHOLE, COARSE = 12, 1e-4  # steps without a look at the loss; where those in fp32 end
THIRD = 0.0963  # |d³ log(1 + e^η) / dη³| is below: a whole step leaves half of it times (x·step)²
NARROW = 1e-6  # and of the curvature in fp32, an error of that much times x·step
TINY = 1e-300  # a probability is no less, so that it has a logarithm
LARGEST = {"float32": 80.0, "float64": 700.0}  # of η: e^η is a number up to there


def balanced(positives: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """(s, w) with which positives and negatives weigh as much; from counts, along the last axis."""
    negatives = rows - positives
    s = 0.5 * positives / np.maximum(positives.sum(axis=-1, keepdims=True), 1)
    return s, s + 0.5 * negatives / np.maximum(negatives.sum(axis=-1, keepdims=True), 1)


def newton(
    x_bkm: Floats,
    s_bm: Floats,
    w_bm: Floats,
    start: tuple[Array, Array] | None = None,
    gradient: float = GRADIENT,
) -> tuple[Floats, Floats]:
    """(β [B, k], intercept [B]) of B problems of m rows; a row of weight 0 is as good as absent.

    Most steps are taken in fp32, from `start` on or from 0, the last ones in fp64: only these
    decide where they end, with no component of the gradient above `gradient`. The steps are whole
    ones, which need no loss; problems that these don't solve start anew, guarded by it.
    """
    x, s, w, scale = _scaled(x_bkm, s_bm, w_bm)
    at = np.zeros(scale.shape)
    if start is not None:
        at[:, :-1], at[:, -1] = start[0], start[1]
        at *= scale
    solution, solved = _steps(x, s, w, _coarse(x, s, w, at)[0].astype(np.float64), gradient)
    if not solved.all():
        rest = ~solved
        parts = x[rest], s[rest], w[rest], np.zeros_like(solution[rest])
        solution[rest] = _descent(*parts, gradient, ROUNDING)
    solution /= scale
    return solution[:, :-1], solution[:, -1]


class Nearly(NamedTuple):
    """Solutions of B problems in fp32, near the exact ones."""

    loss: Array
    """Without its ridge, [B]."""
    found: npt.NDArray[np.bool_]
    """Whether every component of the gradient is below 1e-4, [B]."""
    beta: Array
    intercept: Array


def nearly(x_bkm: Floats, s_bm: Floats, w_bm: Floats) -> Nearly:
    """Solve as `newton` does, without its steps in fp64."""
    parts = _scaled(x_bkm, s_bm, w_bm)
    x, s, w, scale = (part.astype(np.float32) for part in parts)
    near, found = _coarse(x, s, w, np.zeros(scale.shape))
    loss = _at(x, s, w, near)[0] - _ridge(near)
    near /= scale
    return Nearly(loss, found, near[:, :-1], near[:, -1])


def _scaled(x_bkm: Floats, s_bm: Floats, w_bm: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """(x over its root mean square, s and w over the rows' whole weight, that root mean square).

    Below x is a row of ones, the intercept's: [B, k + 1, m] and [B, k + 1].
    """
    total = w_bm.sum(axis=1, keepdims=True)
    w, scale = w_bm / total, np.ones((len(x_bkm), x_bkm.shape[1] + 1))
    scale[:, :-1] = _scale(np.sqrt(np.vecdot(x_bkm * w[:, None], x_bkm)))
    x = np.ones((*scale.shape, x_bkm.shape[2]))
    np.divide(x_bkm, scale[:, :-1, None], out=x[:, :-1])
    return x, s_bm / total, w, scale


def _coarse(x: Array, s: Array, w: Array, start: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """`_steps` in fp32."""
    x32, s32, w32, start32 = (part.astype(np.float32, copy=False) for part in (x, s, w, start))
    return _steps(x32, s32, w32, start32, COARSE)


def _steps(
    x: Array, s: Array, w: Array, start: Array, tolerance: float
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """(β and intercept [B, k + 1], whether their gradient is below `tolerance` [B]).

    Whole Newton steps, at most `WHOLE` of them: the loss is convex, so that however a small
    gradient is reached, it is the solution's. So the curvature need not be exact: it is of fp32.
    """
    solution, solved = start.copy(), np.zeros(len(x), dtype=bool)
    running, at, largest = np.arange(len(x)), start, np.maximum(x.max(axis=2), -x.min(axis=2))
    narrow = x.astype(np.float32, copy=False), w.astype(np.float32, copy=False)
    ridge, diagonal = _ridges(x)
    # of a step's x·step, up to which the gradient after it is certain to be small
    sure = (math.sqrt(NARROW**2 + 2 * THIRD * tolerance) - NARROW) / THIRD
    for _ in range(WHOLE):
        p = _probability(x, at)
        residual = w * p
        residual -= s
        gradient = _over_rows(x, residual)
        gradient += ridge * at
        # a problem that is solved is left as it is: its steps depend on no other; NaN isn't solved
        if (now := np.abs(gradient).max(axis=1) < tolerance).any():
            now &= ~solved[running]
            solution[running[now]], solved[running[now]] = at[now], True
            if solved.all():
                break
        try:
            step = np.linalg.solve(_curvature(*narrow, p, diagonal), gradient[..., None])[..., 0]
        except np.linalg.LinAlgError:  # of a step that went too far
            break
        at = at - step
        if (now := np.vecdot(np.abs(step), largest) < sure).any():
            now &= ~solved[running]
            solution[running[now]], solved[running[now]] = at[now], True
            on = ~solved[running]
            if 2 * on.sum() <= len(on):
                if not on.any():
                    break
                x, s, w, at, largest = (part[on] for part in (x, s, w, at, largest))
                running, narrow = running[on], (narrow[0][on], narrow[1][on])
    return solution, solved


def _probability(x_bkm: Array, at_bk: Array) -> Array:
    """p [B, m]."""
    import torch

    if not at_bk.any():
        return np.full((len(x_bkm), x_bkm.shape[2]), 0.5, dtype=x_bkm.dtype)
    p: Array = (at_bk[:, None] @ x_bkm)[:, 0]
    torch.from_numpy(p).sigmoid_()  # in one pass, a third of numpy's time
    return p


def _descent(
    x: Array, s: Array, w: Array, start: Array, tolerance: float, rounding: float
) -> Array:
    """β and intercept [B, k + 1] from `start` on, for columns of like size."""
    at, solution, running = start, start.copy(), np.arange(len(x))
    ridge, diagonal = _ridges(x)
    loss, p = _at(x, s, w, at)
    for _ in range(STEPS):
        gradient = _over_rows(x, w * p - s) + ridge * at
        # a problem that is solved is left alone: its steps depend on no other
        on = np.abs(gradient).max(axis=1) >= tolerance
        if not on.all():
            solution[running] = at
            parts = (x, s, w, p, at, loss, gradient, running)
            x, s, w, p, at, loss, gradient, running = (part[on] for part in parts)
        if not len(running):
            break
        step = np.linalg.solve(_curvature(x, w, p, diagonal), gradient[..., None])[..., 0]
        size = np.ones((len(x), 1), dtype=x.dtype)
        for _ in range(HALVINGS):
            trial = at - size * step
            after, p = _at(x, s, w, trial)
            # rounding may lift a loss that is as good as the least
            worse = after > loss + rounding
            if not worse.any():
                break
            size[worse] /= 2
        at, loss = trial, after
    solution[running] = at
    return solution


def _at(x_bkm: Array, s_bm: Array, w_bm: Array, at_bk: Array) -> tuple[Array, Array]:
    """(the loss [B], p [B, m])."""
    eta = (at_bk[:, None] @ x_bkm)[:, 0]
    p, softplus = _logistic(eta)
    loss = np.vecdot(w_bm, softplus) - np.vecdot(s_bm, eta)
    return loss + _ridge(at_bk), p


def _ridge(at_bk: Array) -> Array:
    """Its part of the loss, [B]."""
    part: Array = 0.5 * RIDGE * np.square(at_bk[:, :-1]).sum(axis=1)
    return part


def _ridges(x_bkm: Array) -> tuple[Array, Array]:
    """(the ridge of every row of x [k + 1], what it adds to the curvature [k + 1, k + 1])."""
    ridge = np.full(x_bkm.shape[1], RIDGE, dtype=x_bkm.dtype)
    ridge[-1] = 0
    diagonal = np.diag(ridge)
    # a shade more: where all p are 0 or 1 to rounding, nothing would be left to divide by
    diagonal[-1, -1] = np.finfo(x_bkm.dtype).eps
    return ridge, diagonal


def _curvature(x_bkm: Array, w_bm: Array, p_bm: Array, diagonal: Array) -> Array:
    """[B, k + 1, k + 1], in p's precision, of sums in x's."""
    p = p_bm.astype(x_bkm.dtype, copy=False)
    c_bm = 1 - p
    c_bm *= p
    c_bm *= w_bm
    # vectors times matrices: several times faster than products of matrices this narrow
    part = (x_bkm * c_bm[:, None])[:, :, None] @ x_bkm[:, None].swapaxes(2, 3)
    curvature: Array = part[:, :, 0] + diagonal
    return curvature


def _over_rows(x_bkm: Array, c_bm: Array) -> Array:
    """Σ_m x·c, [B, k]."""
    total: Array = (x_bkm @ c_bm[..., None])[..., 0]
    return total


def dense(x_nd: Floats, positive: npt.NDArray[np.bool_]) -> tuple[Floats, float]:
    """(β [d], intercept) of one problem with many features, all of them in the same units.

    All columns are divided by one number, the root mean square of all entries, so that the
    direction of β is one in the space of x. Give it centred x.
    """
    import torch
    from scipy.optimize import minimize

    scale = float(_scale(np.sqrt(np.square(x_nd).mean(keepdims=True)))[0, 0])
    x, n = x_nd / scale, len(x_nd)
    sign = np.where(positive, 1.0, -1.0)

    def loss(v: Floats) -> tuple[float, Floats]:
        beta, right = v[:-1], x @ v[:-1]
        right += v[-1]
        right *= sign
        torch.from_numpy(right).sigmoid_()  # the probability of what is so
        value = -_log_of_product(right) / n + 0.5 * RIDGE * beta @ beta
        right -= 1
        right *= sign
        residual = np.divide(right, n, out=right)
        return float(value), np.append(residual @ x + RIDGE * beta, residual.sum())

    start = np.zeros(x.shape[1] + 1)
    solution = minimize(loss, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-6, "ftol": 0})
    return solution.x[:-1] / scale, float(solution.x[-1])


def _log_of_product(p_n: Floats) -> float:
    """Σ log p of probabilities, to rounding."""
    whole = len(p_n) - len(p_n) % 8
    eight = np.multiply.reduce(p_n[:whole].reshape(8, -1), axis=0)  # a logarithm costs most
    if not eight.min(initial=1) > TINY:
        return float(np.log(np.maximum(p_n, TINY)).sum())
    return float(np.log(eight).sum() + np.log(np.maximum(p_n[whole:], TINY)).sum())


def cross_entropy(eta: Floats, s: Floats, w: Floats) -> Floats:
    """Σ w log(1 + e^η) − s η over the last axis, in nats; the mean where w sums to 1."""
    result: Floats = (w * _logistic(eta)[1] - s * eta).sum(axis=-1)
    return result


def _scale(rms: Floats) -> Floats:
    return np.where(rms > 0, rms, 1.0)


def _logistic(eta: Array) -> tuple[Array, Array]:
    """(1 / (1 + e^−η), log(1 + e^η) = η − log p), from one exponential that cannot overflow."""
    largest = LARGEST[eta.dtype.name]
    p = np.clip(eta, -largest, largest)
    np.negative(p, out=p)
    np.exp(p, out=p)
    p += 1
    softplus = np.log(p)
    softplus += np.maximum(eta, -largest)
    np.reciprocal(p, out=p)
    return p, softplus
