"""Architectures at matched L0: each one's frontier read at the targets, with paired intervals.

Intervals are percentiles over resampled validation documents, the same documents for all cells, so
that the difference of two architectures is far better known than either value; where a cell has
several seeds, each resampling draws as many of them with replacement, and takes their mean. The
bound on the error of reading the line (`compare.frontier`) is added in quadrature.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.frontier import Floats, Frontier, Reading, frontiers
from sae_repro.compare.tables import with_interval
from sae_repro.metrics import names_in
from sae_repro.numerics.bootstrap import LEAST_UNITS, interval, weights
from sae_repro.numerics.intervals import differ


@dataclass(frozen=True)
class Matched:
    """One frontier at one target."""

    frontier: Frontier
    target: float
    reading: Reading
    fvu: float
    sample: Floats
    """FVU of each resampling [B]."""

    @property
    def error(self) -> float:
        """Bound on how far the line may be off, in FVU."""
        return float(self.fvu * np.expm1(self.reading.error))

    @property
    def bounds(self) -> tuple[float, float]:
        """95 % interval of FVU, the line's error in it; in logarithms, so that it stays above 0."""
        ends = interval(np.log(self.sample))
        if ends is None:
            return np.nan, np.nan
        y = np.log(self.fvu)
        low, high = (np.hypot(end - y, self.reading.error) for end in ends)
        return float(np.exp(y - low)), float(np.exp(y + high))


def matched(
    results: Sequence[Result], targets: Sequence[float], resamplings: int, seed: int
) -> list[Matched]:
    """Every frontier at every target; NaN where there is nothing to read."""
    resampled = bootstrap([r for r in results if not r.negative], resamplings, seed)
    return [
        _match(f, target, resampled, resamplings) for f in frontiers(results) for target in targets
    ]


def _match(
    f: Frontier, target: float, resampled: dict[str, tuple[Floats, Floats]], resamplings: int
) -> Matched:
    reading = f.at(target)
    if not reading.readable:
        return Matched(f, target, reading, np.nan, np.full(resamplings, np.nan))
    l0, fvu = (np.stack(part, axis=-1)
               for part in zip(*(resampled[r.name] for r in f.cells), strict=True))  # fmt: skip
    sample = reading.of(f.points(np.log(l0)), f.points(np.log(fvu)))
    return Matched(f, target, reading, float(np.exp(reading.of(*f.line))), np.exp(sample))


def matched_table(rows: Sequence[Matched]) -> pd.DataFrame:
    """A row per frontier and target."""
    return pd.DataFrame([_row(m) for m in rows])


def _row(m: Matched) -> dict[str, Any]:
    f = m.frontier
    low, high = m.bounds
    others = [name for name in names_in("matched_l0.md") if name != "fvu"]
    return {
        "hook": f.hook,
        "expansion": f.expansion,
        "architecture": f.label,
        "target_l0": m.target,
        "reading": m.reading.how,
        "fvu": m.fvu,
        "fvu_low": low,
        "fvu_high": high,
        **{name: _linear(m, name) for name in others},
        "line_error_log_fvu": m.reading.error if m.reading.readable else np.nan,
        "l0_nearest": float(f.l0[np.argmin(np.abs(np.log(f.l0 / m.target)))]),
        "cells": len(f.cells),
        "seeds": sum(len(r.saes) for r in f.cells),
        "l0_from": float(f.l0.min()),
        "l0_to": float(f.l0.max()),
    }


def _linear(m: Matched, metric: str) -> float:
    """Another metric at the same place of the line, linear in log L0."""
    if not m.reading.readable:
        return np.nan
    f = m.frontier
    return float(m.reading.of(f.line[0], f.points(f.values(metric))))


def pairs_table(rows: Sequence[Matched]) -> pd.DataFrame:
    """A row per pair of frontiers of one hook and width at one target, where both are read."""
    groups: dict[tuple[str, float, float], list[Matched]] = defaultdict(list)
    for m in rows:
        if m.reading.readable:
            groups[m.frontier.hook, m.frontier.expansion, m.target].append(m)
    return pd.DataFrame(
        [_pair(a, b) for group in groups.values() for a, b in combinations(group, 2)]
    )


def _pair(a: Matched, b: Matched) -> dict[str, Any]:
    difference = a.fvu - b.fvu
    ends = interval(a.sample - b.sample) or (np.nan, np.nan)
    error = np.hypot(a.error, b.error)
    half = [float(np.hypot(end - difference, error)) for end in ends]
    low, high = difference - half[0], difference + half[1]
    # over the same documents, against none: paired, so known better than a or b
    distinct = differ((low, high), (0.0, 0.0))
    return {
        "hook": a.frontier.hook,
        "expansion": a.frontier.expansion,
        "target_l0": a.target,
        "a": a.frontier.label,
        "b": b.frontier.label,
        "fvu_a_minus_b": difference,
        "low": low,
        "high": high,
        "a_is": ("lower" if high < 0 else "higher") if distinct else "not distinguishable",
    }


def findings(rows: Sequence[Matched], pairs: pd.DataFrame) -> list[str]:
    """A sentence per hook, width and target: FVU by rank, and which pairs are not told apart."""
    sentences = []
    for (hook, expansion, target), group in (
        pairs.groupby(["hook", "expansion", "target_l0"], sort=False) if len(pairs) else ()
    ):
        here = [
            m
            for m in rows
            if (m.frontier.hook, m.frontier.expansion, m.target) == (hook, expansion, target)
            and m.reading.readable
        ]
        ranked = ", ".join(
            f"{m.frontier.label} {with_interval(m.fvu, m.bounds)}"
            for m in sorted(here, key=lambda m: m.fvu)
        )
        unclear = group[group["a_is"] == "not distinguishable"]
        apart = "; ".join(f"{a} and {b}" for a, b in zip(unclear["a"], unclear["b"], strict=True))
        verdict = f"Not distinguishable: {apart}." if apart else "All pairs are distinguishable."
        sentences.append(
            f"FVU at L0 = {target:g}, {expansion:g}×, {hook}, lowest first: {ranked}. {verdict}"
        )
    return sentences


def bootstrap(
    results: Sequence[Result], resamplings: int, seed: int
) -> dict[str, tuple[Floats, Floats]]:
    """Per cell, (L0, FVU) of each resampling [B] of the validation documents and of its seeds.

    NaN where there are fewer documents than `LEAST_UNITS`, which have no intervals.
    """
    usable = [sae for r in results for sae in r.saes]
    by_documents: dict[bytes, list[Result]] = defaultdict(list)
    for r in usable:  # cells on one hook share their documents
        by_documents[r.documents["document"].to_numpy().tobytes()].append(r)
    resampled: dict[str, tuple[Floats, Floats]] = {}
    for group in by_documents.values():
        sums_cnm = np.stack(
            [r.documents[["tokens", "l0_sum", "squared_error", "total_variance"]].to_numpy(float)
             for r in group]
        )  # fmt: skip
        n = sums_cnm.shape[1]
        # all cells at once: `bootstrap.sums` of each would multiply in another order
        blocks = [
            np.einsum("bn,cnm->cbm", weights_bn, sums_cnm, optimize=True)
            for weights_bn in weights(n, seed, "compare", "bootstrap", resamplings=resamplings)
        ]
        total_cbm = np.concatenate(blocks, axis=1)
        if n < LEAST_UNITS:
            total_cbm[:] = np.nan
        for r, t in zip(group, total_cbm, strict=True):
            with np.errstate(divide="ignore", invalid="ignore"):  # documents without variance
                resampled[r.name] = (t[:, 1] / t[:, 0], t[:, 2] / t[:, 3])
    return {r.name: _over_seeds(r, resampled, resamplings, seed) for r in results if r.ok}


def _over_seeds(
    r: Result, resampled: dict[str, tuple[Floats, Floats]], resamplings: int, seed: int
) -> tuple[Floats, Floats]:
    parts = [resampled[sae.name] for sae in r.saes]
    n = len(parts)
    if n == 1:
        return parts[0]
    blocks = weights(n, seed, "compare", "seeds", r.name, resamplings=resamplings)
    fraction_bs = np.concatenate(list(blocks)) / n
    l0, fvu = ((fraction_bs * np.stack(values, axis=1)).sum(axis=1)
               for values in zip(*parts, strict=True))  # fmt: skip
    return l0, fvu
