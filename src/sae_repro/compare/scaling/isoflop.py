"""Compute-optimal widths: from the law, and by Approach 2, the parabolas of IsoFLOP curves.

Approach 2 of J. Hoffmann et al. 2022 (arXiv:2203.15556) takes the loss at a fixed compute C for a
parabola in log K and its vertex for K*(C). Where α ≠ β the curve is no parabola, and the vertex is
off even without noise, the more so the wider the grid and the farther its middle from K* (E. Czech
et al. 2026, arXiv:2603.22339). It is shown beside the law, with the bias that it has on the law.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sae_repro.compare.scaling.law import Floats, Law, least_squares

LEAST_WIDTHS = 3
"""Of an IsoFLOP curve: fewer make no parabola."""
WIDTHS = (1.0, 1e12)
"""Where a compute-optimal width is searched."""
ROUNDS = 80
"""Of the golden section over log K: its bracket shrinks to 1e-15 of what it was."""


@dataclass(frozen=True)
class Cost:
    """Operations of training per token: `fixed` + `per_latent` · K (`params.operations`)."""

    fixed: float
    per_latent: float

    def per_token(self, x: Floats) -> Floats:
        """Operations per token at width `x`."""
        return self.fixed + self.per_latent * x


def optimum(law: Law, cost: Cost, compute: float) -> tuple[Floats, Floats, Floats]:
    """(K*, T*, loss) [R] with the lowest loss at `compute` operations.

    NaN for laws without both exponents. The loss is convex in log K, so a golden section finds it.
    """
    found = law.alpha_found & law.beta_found
    low, high = (np.full(len(found), np.log(end)) for end in WIDTHS)
    golden = (np.sqrt(5) - 1) / 2

    def loss(log_x: Floats) -> Floats:
        x = np.exp(log_x)
        return law.at(x, compute / cost.per_token(x))

    for _ in range(ROUNDS):
        a, b = high - golden * (high - low), low + golden * (high - low)
        left = loss(a) < loss(b)
        low, high = np.where(left, low, a), np.where(left, b, high)
    x = np.where(found, np.exp((low + high) / 2), np.nan)
    t = compute / cost.per_token(x)
    return x, t, law.at(x, t)


def vertex(log_x: Floats, loss: Floats) -> Floats:
    """log K at the lowest point of the parabola through losses [R, n] at `log_x` [n].

    NaN where it opens downwards, or its vertex is outside of the widths: that were extrapolation.
    """
    middle = float(log_x.mean())
    u = (log_x - middle)[:, None]
    _, (_, slope, bend) = least_squares([np.ones_like(u), u, u * u], loss.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        lowest = middle - slope / (2 * bend)
    inside = (bend > 0) & (lowest >= log_x.min()) & (lowest <= log_x.max())
    return np.where(inside, lowest, np.nan)


def curve(x: Floats, t: Floats, loss: Floats, cost: Cost, compute: float) -> tuple[Floats, Floats]:
    """(widths [m], losses [R, m]) at `compute`, between cells of one width, straight in logs.

    `loss` [R, n]; widths whose cells do not reach `compute` from both sides are left out.
    """
    widths, losses = [], []
    for width in sorted(set(x.tolist())):
        at = np.flatnonzero(x == width)
        at = at[np.argsort(t[at], kind="stable")]
        tokens = compute / float(cost.per_token(np.array(width)))
        if not t[at[0]] <= tokens <= t[at[-1]] or len(at) < 2:
            continue
        right = int(np.clip(np.searchsorted(t[at], tokens), 1, len(at) - 1))
        a, b = at[right - 1], at[right]
        part = (np.log(tokens) - np.log(t[a])) / (np.log(t[b]) - np.log(t[a]))
        widths.append(width)
        losses.append(np.exp((1 - part) * np.log(loss[:, a]) + part * np.log(loss[:, b])))
    rows = len(loss)
    return np.array(widths), np.stack(losses, axis=1) if losses else np.zeros((rows, 0))


def by_parabola(x: Floats, t: Floats, loss: Floats, cost: Cost, compute: float) -> Floats:
    """K*(`compute`) by Approach 2 of each table of losses [R, n]; NaN where there is none."""
    widths, losses = curve(x, t, loss, cost, compute)
    if len(widths) < LEAST_WIDTHS:
        return np.full(len(loss), np.nan)
    return np.exp(vertex(np.log(widths), losses))


def budgets(x: Floats, t: Floats, cost: Cost) -> Sequence[float]:
    """The compute of IsoFLOP curves: that of the middle width at each number of tokens.

    Those at which a parabola can be laid through the cells.
    """
    widths = sorted(set(x.tolist()))
    per_token = float(cost.per_token(np.array(widths[len(widths) // 2])))
    at = [per_token * tokens for tokens in sorted(set(t.tolist()))]
    ones = np.ones((1, len(x)))
    return [c for c in at if len(curve(x, t, ones, cost, c)[0]) >= LEAST_WIDTHS]
