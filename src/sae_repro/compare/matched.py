"""Architectures at matched L0: each one's frontier read at the targets, with paired intervals.

With several seeds, intervals are over seeds and documents (`numerics.seeds`): what is called a
difference must survive another seed. The documents are resampled, the same for all cells, so that
the difference of two architectures is far better known than either value. With one seed there is
the percentile interval of the documents alone, and no difference is claimed. The bound on the error
of reading the line (`compare.frontier`) is added in quadrature.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.differences import NOT_DISTINGUISHABLE, ONE_SEED
from sae_repro.compare.frontier import Floats, Frontier, Reading, frontiers
from sae_repro.compare.tables import with_interval
from sae_repro.metrics import names_in
from sae_repro.numerics.bootstrap import LEAST_UNITS, interval, weights
from sae_repro.numerics.intervals import differ
from sae_repro.numerics.seeds import LEAST_SEEDS, Seeds, half_width


@dataclass(frozen=True)
class Matched:
    """One frontier at one target."""

    frontier: Frontier
    target: float
    reading: Reading
    fvu: float
    logs: Seeds
    """log FVU of each seed [n], and of each resampling of the documents [B, n]."""
    documents: int = 0

    @property
    def seeds(self) -> int:
        """Seeds read; 0 where there is nothing to read."""
        return len(self.logs.values)

    @property
    def several(self) -> bool:
        """Whether its interval knows of other seeds, so that a difference may be claimed."""
        return self.seeds >= LEAST_SEEDS

    @property
    def over(self) -> str:
        """What its interval is over."""
        if not self.seeds:
            return ""
        return "seeds and documents" if self.several else "documents (one seed)"

    @property
    def fvus(self) -> Seeds:
        """`logs` as FVU."""
        return Seeds(np.exp(self.logs.values), np.exp(self.logs.resampled))

    @property
    def error(self) -> float:
        """Bound on how far the line may be off, in FVU."""
        return float(self.fvu * np.expm1(self.reading.error))

    @property
    def bounds(self) -> tuple[float, float]:
        """95 % interval of FVU, the line's error in it; in logarithms, so that it stays above 0."""
        if not self.seeds:
            return np.nan, np.nan
        y = np.log(self.fvu)
        if self.several:
            half = float(half_width(self.logs, documents=self.documents))
            low = high = float(np.hypot(half, self.reading.error))
        else:
            ends = interval(self.logs.mean)
            if ends is None:
                return np.nan, np.nan
            low, high = (float(np.hypot(end - y, self.reading.error)) for end in ends)
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
        return Matched(f, target, reading, np.nan, Seeds(np.empty(0), np.empty((resamplings, 0))))
    values, samples = [], []
    for seed in range(f.seeds_at(reading)):
        # of a point that is not read, its cells may have fewer seeds: whichever stands for it
        saes = [r.saes[min(seed, len(r.saes) - 1)] for r in f.cells]
        own = [[sae.metrics[name] for sae in saes] for name in ("l0", "fvu")]
        l0, fvu = (f.points(np.log(np.array(part, dtype=np.float64))) for part in own)
        values.append(reading.about(f.line, l0, fvu))
        drawn = zip(*(resampled[sae.name] for sae in saes), strict=True)
        l0, fvu = (f.points(np.log(np.stack(part, axis=-1))) for part in drawn)
        samples.append(reading.about(f.line, l0, fvu))
    logs = Seeds(np.array(values), np.stack(samples, axis=-1))
    documents = len(f.cells[0].saes[0].documents)
    return Matched(f, target, reading, float(np.exp(reading.of(*f.line))), logs, documents)


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
        "interval_over": m.over,
        **{name: _linear(m, name) for name in others},
        "line_error_log_fvu": m.reading.error if m.reading.readable else np.nan,
        "l0_nearest": float(f.l0[np.argmin(np.abs(np.log(f.l0 / m.target)))]),
        "cells": len(f.cells),
        "seeds": m.seeds,
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
    low, high = _bounds(a, b)
    return {
        "hook": a.frontier.hook,
        "expansion": a.frontier.expansion,
        "target_l0": a.target,
        "a": a.frontier.label,
        "b": b.frontier.label,
        "fvu_a_minus_b": a.fvu - b.fvu,
        "low": low,
        "high": high,
        "a_is": _verdict(a, b, (low, high)),
        "interval_over": min(a, b, key=lambda m: m.seeds).over,
        "seeds_a": a.seeds,
        "seeds_b": b.seeds,
    }


def _bounds(a: Matched, b: Matched) -> tuple[float, float]:
    """95 % interval of the difference of FVU, the errors of both lines in it."""
    difference, error = a.fvu - b.fvu, np.hypot(a.error, b.error)
    if a.several and b.several:
        half = float(half_width(a.fvus, b.fvus, documents=a.documents))
        ends = [difference - half, difference + half]
    else:
        # over the same documents: paired, so known better than a or b
        ends = interval(a.fvus.mean - b.fvus.mean) or [np.nan, np.nan]
    below, above = (float(np.hypot(end - difference, error)) for end in ends)
    return difference - below, difference + above


def _verdict(a: Matched, b: Matched, bounds: tuple[float, float]) -> str:
    if not (a.several and b.several):
        return ONE_SEED
    if not differ(bounds, (0.0, 0.0)):
        return NOT_DISTINGUISHABLE
    return "lower" if bounds[1] < 0 else "higher"


def findings(rows: Sequence[Matched], pairs: pd.DataFrame) -> list[str]:
    """A sentence per hook, width and target: FVU by rank, and which pairs are not told apart.

    What has one seed is told by itself, unranked, in the order of params.yaml.
    """
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
        parts = []
        several = sorted((m for m in here if m.several), key=lambda m: m.fvu)
        if len(several) == 1:
            parts.append(f"{_named(several)}.")
        elif several:
            unclear = group[group["a_is"] == NOT_DISTINGUISHABLE]
            apart = "; ".join(
                f"{a} and {b}" for a, b in zip(unclear["a"], unclear["b"], strict=True)
            )
            verdict = (
                f"Not distinguishable: {apart}." if apart else "All pairs are distinguishable."
            )
            parts.append(f"lowest first: {_named(several)}. {verdict}")
        if single := [m for m in here if not m.several]:
            parts.append(f"{ONE_SEED}, no difference is claimed: {_named(single)}.")
        place = f"FVU at L0 = {target:g}, {expansion:g}×, {hook}"
        sentences.append(f"{place}{', ' if several[1:] else ': '}{' '.join(parts)}")
    return sentences


def _named(rows: Sequence[Matched]) -> str:
    return ", ".join(f"{m.frontier.label} {with_interval(m.fvu, m.bounds)}" for m in rows)


def bootstrap(
    results: Sequence[Result], resamplings: int, seed: int
) -> dict[str, tuple[Floats, Floats]]:
    """Per SAE by its name, (L0, FVU) of each resampling [B] of the validation documents.

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
    return resampled
