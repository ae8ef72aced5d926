"""The statistics of claims: each a number with its 95 % interval, from the tables of SAEs.

Intervals over seeds are Student's t (Welch's for two groups) over the seeds, joined in quadrature
with that over the documents, which all cells share. Over cells, each cell is one observation.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sae_repro.compare.claim_data import Floats, Tables, UndecidedError
from sae_repro.numerics.intervals import Z_95, student, wilson
from sae_repro.numerics.seeds import seeds_half
from sae_repro.params.claims import (
    Difference,
    EquivalentSize,
    Mean,
    RankCorrelation,
    Ratio,
    Recorded,
    Share,
    Slope,
    Statistic,
    Untested,
)

LEAST_CELLS = 4
"""Of cells that stand for one another's repetition: with fewer, t's interval says nothing."""


@dataclass(frozen=True)
class Measured:
    """A number, the ends of its 95 % interval, and what that is over."""

    value: float
    low: float
    high: float
    n: int
    over: str

    def exp(self) -> "Measured":
        """Of a difference of logarithms, the ratio."""
        value, low, high = (float(np.exp(end)) for end in (self.value, self.low, self.high))
        return Measured(value, low, high, self.n, self.over)


def measure(test: Statistic, tables: Tables) -> Measured:
    """The number of `test`; UndecidedError, with the reason, where the tables have none."""
    match test:
        case Mean():
            return _mean(test, tables)
        case Difference():
            return _difference(test, tables, logs=False)
        case Ratio():
            return _ratio(test, tables)
        case Slope():
            return _slope(test, tables)
        case RankCorrelation():
            return _rank_correlation(test, tables)
        case Share():
            return _share(test, tables)
        case EquivalentSize():
            return _equivalent_size(test, tables).exp()
        case Recorded():
            return Measured(test.value, test.low, test.high, test.n, "recorded measurements")
        case Untested():
            raise UndecidedError(test.reason)


Part = tuple[list[str], Floats]
"""Cells, and the weight of each in a sum [cells]."""


def _over_seeds(tables: Tables, metric: str, *parts: Part, logs: bool = False) -> Measured:
    """The sum of the parts, one or two, each seed's own sum being an observation of its part."""
    cells = [cell for part, _ in parts for cell in part]
    weights = np.concatenate([weights for _, weights in parts])
    if tables.of_seeds(cells, metric):
        values, halves, n = tables.whole(cells, metric, logs=logs)
        value, half = _sum(weights * values), float(np.sqrt(_sum(np.square(weights * halves))))
        return Measured(value, value - half, value + half, n, "seeds together")
    sums = [
        (weights[:, None] * tables.by_seed(part, metric, logs=logs)).sum(axis=0)
        for part, weights in parts
    ]
    halves = weights * [tables.documents_half(cell, metric, logs=logs) for cell in cells]
    # what the documents do to cells of one sign adds up; what they do to both would cancel
    documents = float(np.hypot(halves[halves > 0].sum(), halves[halves < 0].sum()))
    value = float(sum(one.mean() for one in sums))
    half = float(np.hypot(seeds_half(*sums), documents))
    over = "seeds and documents" if documents else "seeds"
    return Measured(value, value - half, value + half, min(map(len, sums)), over)


def _sum(values: Floats) -> float:
    """Their sum, not by a product of vectors, whose order follows the processor."""
    return float(values.sum())


def _equal(cells: list[str], sign: int = 1) -> Part:
    return cells, np.full(len(cells), sign / len(cells))


def _over_cells(values: Floats, what: str = "cells") -> Measured:
    if len(values) < LEAST_CELLS:
        raise UndecidedError(f"{len(values)} {what}; an interval over them takes {LEAST_CELLS}")
    mean, low, high = student(values.tolist())
    return Measured(mean, low, high, len(values), what)


def _mean(test: Mean, tables: Tables) -> Measured:
    cells = tables.group(test.cells)
    if test.over == "cells":
        return _over_cells(tables.means(cells, test.metric))
    return _over_seeds(tables, test.metric, _equal(cells))


def _difference(test: Difference | Ratio, tables: Tables, *, logs: bool) -> Measured:
    groups = [tables.group(test.cells), tables.group(test.than)]
    if test.over == "cells":
        if len(groups[0]) != len(groups[1]):
            raise UndecidedError(f"no pairs: {len(groups[0])} cells and {len(groups[1])}")
        a, b = (tables.means(group, test.metric, logs=logs) for group in groups)
        return _over_cells(a - b, "pairs of cells")
    return _over_seeds(tables, test.metric, _equal(groups[0]), _equal(groups[1], -1), logs=logs)


def _ratio(test: Ratio, tables: Tables) -> Measured:
    """The ratio of geometric means; 0 where a fraction is 0 in every seed of the cells.

    That has no logarithm, but an interval: the ratio is at most the fraction's upper end over the
    lower end of what it is compared with. Either is missed in 2.5 % at most, and both hold in 95 %
    at least (C. E. Bonferroni's inequality).
    """
    cells = tables.group(test.cells)
    most = tables.most_of_none(cells, test.metric) if test.over == "seeds" else None
    if most is None:
        return _difference(test, tables, logs=True).exp()
    seeds = tables.by_seed(cells, test.metric).shape[1]
    than = _over_seeds(tables, test.metric, _equal(tables.group(test.than)), logs=True).exp()
    over = f"{than.over}, and latents of which none counts"
    return Measured(0.0, 0.0, most / than.low, min(seeds, than.n), over)


def _slope(test: Slope, tables: Tables) -> Measured:
    cells = tables.group(test.cells)
    if test.over == "seeds":
        return _over_seeds(tables, test.metric, (cells, _fit(tables, cells, test)))
    slopes = [
        _sum(_fit(tables, series, test) * tables.means(series, test.metric))
        for series in tables.series(cells, test.axis)
    ]
    return _over_cells(np.array(slopes), "series of cells")


def _fit(tables: Tables, cells: list[str], test: Slope) -> Floats:
    """Weights [cells] by which the metric adds up to its least-squares slope per doubling."""
    places = np.array([tables.axis(cell, test.axis) for cell in cells])
    if not (places > 0).all() or np.ptp(places) == 0:
        raise UndecidedError(f"the cells do not differ in {test.axis}, or it is not above 0")
    centred = np.log2(places) - np.log2(places).mean()
    weights: Floats = centred / np.square(centred).sum()
    return weights


def _rank_correlation(test: RankCorrelation, tables: Tables) -> Measured:
    """Spearman's ρ; its interval by Fisher's z with variance 1.06 / (n − 3).

    Source: E. C. Fieller, H. O. Hartley and E. S. Pearson 1957, "Tests for rank correlation
    coefficients I", Biometrika 44.
    """
    from scipy.stats import rankdata

    cells = tables.group(test.cells)
    x = np.array([tables.axis(cell, test.axis) for cell in cells])
    y = tables.means(cells, test.metric)
    n = len(cells)
    if n < LEAST_CELLS + 1:
        raise UndecidedError(f"{n} cells; a rank correlation takes {LEAST_CELLS + 1}")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise UndecidedError(f"{test.metric if np.ptp(x) else test.axis} is the same in all cells")
    ranks = [rankdata(v) - (n + 1) / 2 for v in (x, y)]
    rho = _sum(ranks[0] * ranks[1]) / math.sqrt(_sum(ranks[0] ** 2) * _sum(ranks[1] ** 2))
    z, half = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12)), Z_95 * np.sqrt(1.06 / (n - 3))
    low, high = (float(np.tanh(end)) for end in (z - half, z + half))
    return Measured(rho, min(low, rho), max(high, rho), n, "cells")


def _share(test: Share, tables: Tables) -> Measured:
    values = tables.means(tables.group(test.cells), test.metric)
    reached, n = int((values >= test.bound).sum()), len(values)
    low, high = wilson(reached, n)
    return Measured(reached / n, low, high, n, "cells")


def _equivalent_size(test: EquivalentSize, tables: Tables) -> Measured:
    """log of the ratio of widths, seed by seed: the documents are the same and cancel."""
    cells, than = tables.group(test.cells), tables.group(test.than)
    if len(cells) != 1:
        raise UndecidedError(f"an equivalent size is that of one cell, not of {', '.join(cells)}")
    than = sorted(than, key=lambda cell: tables.axis(cell, "K"))
    log_k = np.log([tables.axis(cell, "K") for cell in than])
    own_n, curve_cn = tables.by_seed(cells, test.metric)[0], tables.by_seed(than, test.metric)
    n = min(len(own_n), curve_cn.shape[1])
    sizes = np.array([crossing(log_k, curve_cn[:, i], float(own_n[i])) for i in range(n)])
    if not np.isfinite(sizes).all():
        low, high = (f"{np.exp(end):.0f}" for end in (log_k[0], log_k[-1]))
        raise UndecidedError(
            f"beyond the widths compared with, K {low} to {high}: not extrapolated"
        )
    ratios = sizes - np.log(tables.axis(cells[0], "K"))
    value, half = float(ratios.mean()), float(seeds_half(ratios))
    return Measured(value, value - half, value + half, n, "seeds")


def crossing(log_k: Floats, metric: Floats, value: float) -> float:
    """Where the line through (`log_k`, `metric`) first has `value`; NaN where it never does."""
    points = zip(log_k, metric, strict=True)
    for (a, at_a), (b, at_b) in pairwise(points):
        if min(at_a, at_b) <= value <= max(at_a, at_b) and at_a != at_b:
            return float(a + (b - a) * (value - at_a) / (at_b - at_a))
    return np.nan
