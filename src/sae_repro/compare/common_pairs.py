"""Means over those pairs and concepts that are testable in all compared SAEs.

hole_rate, absorption_rate and splitting_mean of a cell are over what is testable in its own SAEs.
Which these are depends on the SAE: a parent that its latents find too rarely has no holes to
count. Cells are compared on what all of them can be asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.differences import Estimate
from sae_repro.metrics import find, mean_over_seeds
from sae_repro.metrics.metric import FRACTION
from sae_repro.numerics.bootstrap import LEAST_UNITS, mean_interval
from sae_repro.numerics.intervals import Interval
from sae_repro.numerics.seeds import LEAST_SEEDS

TESTABLE = "testable"
PAIRS = {
    "hole_rate": ("zero", "hole_rate"),
    "absorption_rate": ("zero", "absorption"),
    "hole_rate_faint": ("faint", "hole_rate"),
    "absorption_rate_faint": ("faint", "absorption"),
}
"""Metrics of pairs.parquet: the notion of silence, and the column."""
CONCEPTS = {
    "coverage": "covered",
    "splitting_mean": "splitting",
    "recall_at_p80_mean": "recall_at_p80",
    "fragmented_fraction": "fragmented",
    "probe_auc_1": "probe_auc_1",
    "probe_auc_2": "probe_auc_2",
    "probe_auc_5": "probe_auc_5",
    "probe_loss": "probe_loss",
}
"""Metrics of concepts.parquet: the column."""
COMMON = (*PAIRS, *CONCEPTS)


@dataclass(frozen=True)
class Common:
    """One metric of several cells over the same pairs (parent and child) or concepts."""

    metric: str
    units: int
    """Pairs or concepts that are testable in every SAE of every cell."""
    of: int
    """Those that are testable in any of them."""
    estimates: dict[str, Estimate]
    """By cell; none where `units` is 0."""


def common_pairs(results: Sequence[Result], cells: Sequence[str], metric: str, seed: int) -> Common:
    """`metric`, one of `COMMON`, of the named cells over what is testable in all their SAEs.

    The interval of a cell with several finished seeds is over these, as that of the metric itself;
    of one SAE it is a bootstrap over parents (`seed` is the study's), or concepts. Cells without
    the metric are left out.
    """
    found = {r.name: r for r in results if r.name in cells and r.metrics.get(metric) is not None}
    columns = {
        name: [_values(sae, metric) for sae in result.saes] for name, result in found.items()
    }
    every = [column for of_cell in columns.values() for column in of_cell]
    shared, either = _both(every)
    estimates = {}
    for name, result in found.items():
        by_seed = [float(column.loc[shared].mean()) for column in columns[name]]
        if len(shared):
            bounds = _interval(metric, by_seed, columns[name][0].loc[shared], seed)
            estimates[name] = Estimate(
                cell=name,
                value=float(np.mean(by_seed)),
                interval=bounds,
                by_seed=tuple(by_seed),
                trained=not result.cell.is_basis,
            )
    return Common(metric, len(shared), len(either), estimates)


def _both(columns: Sequence["pd.Series[float]"]) -> tuple[pd.Index, pd.Index]:
    """The entries that all columns have, and those that any has; sorted."""
    if not columns:
        return pd.Index([]), pd.Index([])
    shared = either = columns[0].index
    for column in columns[1:]:
        shared, either = shared.intersection(column.index), either.union(column.index)
    return shared.sort_values(), either


def _interval(
    metric: str, by_seed: Sequence[float], first: "pd.Series[float]", seed: int
) -> Interval:
    if len(by_seed) >= LEAST_SEEDS:
        row = find(metric)
        mean, low, high = mean_over_seeds(row, by_seed)
        if row is None or row.unit != FRACTION:
            return low, high
        # seeds that agree exactly may differ by less than one of so many things
        half = 1 / (2 * len(first))
        return min(low, max(0.0, mean - half)), max(high, min(1.0, mean + half))
    # pairs of one parent are one unit
    unit = first.index.get_level_values(0)
    if unit.nunique() < LEAST_UNITS:
        return (np.nan, np.nan)
    return mean_interval(first.to_numpy(), seed, metric, cluster=unit.to_numpy())


def _values(sae: Result, metric: str) -> "pd.Series[float]":
    """The metric of one SAE by (parent, child), or by concept: those that are testable."""
    if metric in CONCEPTS:
        return sae.concepts.set_index("concept")[CONCEPTS[metric]].astype(float).dropna()
    silence, column = PAIRS[metric]
    tested = sae.pairs[(sae.pairs["silence"] == silence) & (sae.pairs["status"] == TESTABLE)]
    return tested.set_index(["parent", "child"])[column].astype(float)
