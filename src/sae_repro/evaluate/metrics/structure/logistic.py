"""Logistic regressions with a ridge, in fp64: of few features by Newton's method, many at once; of
many features by L-BFGS.

The loss is Σ_n [w log(1 + e^η) − s η] / Σ_n w + ½ RIDGE ‖β‖², the intercept free: w is a row's
weight and s the part of it that is positive. Columns are first divided by their root mean square,
so that the ridge does not depend on units.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RIDGE = 1e-3
STEPS, GRADIENT = 50, 1e-7
HALVINGS, ROUNDING = 30, 1e-12


def balanced(positives: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """(s, w) with which positives and negatives weigh as much; from counts, along the last axis."""
    negatives = rows - positives
    s = 0.5 * positives / np.maximum(positives.sum(axis=-1, keepdims=True), 1)
    return s, s + 0.5 * negatives / np.maximum(negatives.sum(axis=-1, keepdims=True), 1)


def newton(x_bmk: Floats, s_bm: Floats, w_bm: Floats) -> tuple[Floats, Floats]:
    """(β [B, k], intercept [B]) of B problems of m rows; a row of weight 0 is as good as absent."""
    total = w_bm.sum(axis=1, keepdims=True)
    s, w = s_bm / total, w_bm / total
    scale = _scale(np.sqrt((np.square(x_bmk) * w[..., None]).sum(axis=1)))
    x = np.concatenate([x_bmk / scale[:, None], np.ones((*x_bmk.shape[:2], 1))], axis=2)
    ridge = np.full(x.shape[2], RIDGE)
    ridge[-1] = 0.0

    def at(beta: Floats) -> tuple[Floats, Floats]:
        eta = (x @ beta[..., None])[..., 0]
        p, softplus = _logistic(eta)
        loss: Floats = (w * softplus - s * eta).sum(axis=1)
        return loss + 0.5 * (ridge * np.square(beta)).sum(axis=1), p

    beta = np.zeros((len(x), x.shape[2]))
    loss, p = at(beta)
    for _ in range(STEPS):
        gradient = ((w * p - s)[:, None] @ x)[:, 0] + ridge * beta
        if np.abs(gradient).max(initial=0.0) < GRADIENT:
            break
        curvature = x.transpose(0, 2, 1) @ (x * (w * p * (1 - p))[..., None]) + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        size = np.ones((len(x), 1))
        for _ in range(HALVINGS):
            trial = beta - size * step
            after, p = at(trial)
            # rounding may lift a loss that is as good as the least
            worse = after > loss + ROUNDING
            if not worse.any():
                break
            size[worse] /= 2
        beta, loss = trial, after
    return beta[:, :-1] / scale, beta[:, -1]


def dense(x_nd: Floats, positive: npt.NDArray[np.bool_]) -> tuple[Floats, float]:
    """(β [d], intercept) of one problem with many features, all of them in the same units.

    All columns are divided by one number, the root mean square of all entries, so that the
    direction of β is one in the space of x. Give it centred x.
    """
    from scipy.optimize import minimize

    scale = float(_scale(np.sqrt(np.square(x_nd).mean(keepdims=True)))[0, 0])
    x, y, n = x_nd / scale, positive.astype(np.float64), len(x_nd)

    def loss(v: Floats) -> tuple[float, Floats]:
        beta, eta = v[:-1], x @ v[:-1] + v[-1]
        p, softplus = _logistic(eta)
        residual = (p - y) / n
        value = (softplus - y * eta).sum() / n + 0.5 * RIDGE * beta @ beta
        return float(value), np.append(residual @ x + RIDGE * beta, residual.sum())

    start = np.zeros(x.shape[1] + 1)
    solution = minimize(loss, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-6, "ftol": 0})
    return solution.x[:-1] / scale, float(solution.x[-1])


def cross_entropy(eta: Floats, s: Floats, w: Floats) -> Floats:
    """Σ w log(1 + e^η) − s η over the last axis, in nats; the mean where w sums to 1."""
    result: Floats = (w * _logistic(eta)[1] - s * eta).sum(axis=-1)
    return result


def _scale(rms: Floats) -> Floats:
    return np.where(rms > 0, rms, 1.0)


def _logistic(eta: Floats) -> tuple[Floats, Floats]:
    """(1 / (1 + e^−η), log(1 + e^η)), from one exponential that cannot overflow."""
    small = np.exp(-np.abs(eta))
    p = np.where(eta >= 0, 1.0, small) / (1 + small)
    return p, np.maximum(eta, 0) + np.log1p(small)
