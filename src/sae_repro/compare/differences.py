"""Differences between two cells in a metric: what is said must survive another seed.

Both cells need several seeds. They are called different where their intervals, which know how well
each SAE was measured, have no point in common, and Welch's interval of the difference of the seeds'
means leaves out 0. Bases (neurons, PCA) are not trained: they have no seeds, and stand as they are.
"""

from dataclasses import dataclass

import numpy as np

from sae_repro.compare.collect import Result
from sae_repro.compare.tables import with_interval
from sae_repro.numerics.intervals import Interval, differ
from sae_repro.numerics.seeds import LEAST_SEEDS, seeds_half

DIFFERENT = "different"
NOT_DISTINGUISHABLE = "not distinguishable"
ONE_SEED = "one seed"


@dataclass(frozen=True)
class Estimate:
    """A cell's value of a metric, with its 95 % interval and the values of its seeds."""

    cell: str
    value: float
    interval: Interval
    by_seed: tuple[float, ...] = ()
    trained: bool = True
    """Whether another seed would give another value."""

    @property
    def known(self) -> bool:
        """Whether more than one seed says so, or no seed has a say in it."""
        return not self.trained or len(self.by_seed) >= LEAST_SEEDS

    def __str__(self) -> str:
        return with_interval(self.value, self.interval)


def estimate(result: Result, metric: str) -> Estimate | None:
    """The metric where it was measured and has an interval; else None."""
    value, interval = result.metrics.get(metric), result.interval(metric)
    if value is None or interval is None:
        return None
    by_seed = tuple(result.by_seed(metric))
    return Estimate(result.name, value, interval, by_seed, trained=not result.cell.is_basis)


def verdict(a: Estimate, b: Estimate) -> str:
    """Different, not distinguishable, or one seed."""
    if not (a.known and b.known):
        return ONE_SEED
    trained = [one.by_seed for one in (a, b) if one.trained]
    half = float(seeds_half(*trained)) if trained else 0.0
    apart = abs(a.value - b.value) > half and differ(a.interval, b.interval)
    return DIFFERENT if apart and np.isfinite(half) else NOT_DISTINGUISHABLE


def told_apart(a: Result, b: Result, metric: str) -> str:
    """`verdict` of two cells; not distinguishable where one lacks the metric or an interval."""
    one, other = estimate(a, metric), estimate(b, metric)
    return verdict(one, other) if one and other else NOT_DISTINGUISHABLE
