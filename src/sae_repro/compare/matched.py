"""Architectures at matched L0: each one's frontier, interpolated, with paired intervals.

Every architecture is a line through its cells in (log L0, metric); nothing is extrapolated.
Intervals are percentiles over resampled validation documents, the same documents for all cells, so
that the difference of two architectures is far better known than either value. Where a cell has
several seeds, each resampling draws as many of them with replacement, and takes their mean.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.metrics import names_in
from sae_repro.numerics.bootstrap import interval, weights
from sae_repro.numerics.intervals import differ

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Frontier:
    """The cells of one architecture on one hook at one expansion, by rising L0."""

    architecture: str
    hook: str
    expansion: float
    cells: tuple[Result, ...]

    @property
    def l0(self) -> Floats:
        """Reached L0 of each cell."""
        return np.array([r.metrics["l0"] for r in self.cells], dtype=np.float64)

    def values(self, metric: str) -> Floats:
        """The metric of each cell; NaN where it was not measured."""
        return np.array([r.metrics[metric] for r in self.cells], dtype=np.float64)


def frontiers(results: Sequence[Result]) -> list[Frontier]:
    """Finished cells grouped by architecture, hook and expansion, in the order of params.yaml.

    Negative controls are not among them.
    """
    groups: dict[tuple[str, str, float], list[Result]] = defaultdict(list)
    for r in results:
        if r.ok and not r.negative and (r.metrics["l0"] or 0) > 0:
            groups[r.architecture, r.hook, r.expansion].append(r)
    return [
        Frontier(*key, tuple(sorted(group, key=lambda r: r.metrics["l0"] or 0)))
        for key, group in groups.items()
    ]


def interpolate(l0: Floats, values: Floats, target: float) -> Floats:
    """`values` [..., cells] at `target`, linear in log L0; NaN outside the cells' range.

    `l0` [..., cells] rises along the last axis; each leading index is a frontier of its own.
    """
    l0, values = np.broadcast_arrays(l0, values)
    order = np.argsort(l0, axis=-1, kind="stable")
    x = np.log(np.take_along_axis(l0, order, axis=-1))
    y = np.take_along_axis(values, order, axis=-1)
    t = np.log(target)
    result = np.full(x.shape[:-1], np.nan)
    for i in range(x.shape[-1]):
        result = np.where(x[..., i] == t, y[..., i], result)
    for i in range(x.shape[-1] - 1):
        a, b = x[..., i], x[..., i + 1]
        inside = (a < t) & (t < b)
        width = np.where(inside, b - a, 1.0)
        result = np.where(inside, y[..., i] + (y[..., i + 1] - y[..., i]) * (t - a) / width, result)
    return result


def bootstrap(
    results: Sequence[Result], resamplings: int, seed: int
) -> dict[str, tuple[Floats, Floats]]:
    """Per cell, (L0, FVU) of each resampling [B] of the validation documents and of its seeds."""
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
        for r, t in zip(group, total_cbm, strict=True):
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


def matched_table(
    results: Sequence[Result], targets: Sequence[float], resamplings: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(a row per frontier and target, a row per pair of frontiers and target)."""
    metrics = names_in("matched_l0.md")
    resampled = bootstrap([r for r in results if not r.negative], resamplings, seed)
    rows: list[dict[str, Any]] = []
    samples: dict[tuple[str, float, str, float], Floats] = {}
    for f in frontiers(results):
        for target in targets:
            l0 = np.stack([resampled[r.name][0] for r in f.cells], axis=-1)
            fvu = np.stack([resampled[r.name][1] for r in f.cells], axis=-1)
            point = {m: float(interpolate(f.l0, f.values(m), target)) for m in metrics}
            outside = np.isnan(point["fvu"])
            sample = np.full(resamplings, np.nan) if outside else interpolate(l0, fvu, target)
            low, high = interval(sample) or (np.nan, np.nan)
            samples[f.hook, f.expansion, f.architecture, target] = sample
            rows.append(
                {
                    "hook": f.hook,
                    "expansion": f.expansion,
                    "architecture": f.architecture,
                    "target_l0": target,
                    **point,
                    "fvu_low": low,
                    "fvu_high": high,
                    "cells": len(f.cells),
                    "seeds": sum(len(r.saes) for r in f.cells),
                    "l0_from": float(f.l0.min()),
                    "l0_to": float(f.l0.max()),
                }
            )
    return pd.DataFrame(rows), pd.DataFrame(_pairs(samples, rows))


def _pairs(
    samples: dict[tuple[str, float, str, float], Floats], rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    value = {(r["hook"], r["expansion"], r["architecture"], r["target_l0"]): r["fvu"] for r in rows}
    pairs = []
    for a, b in combinations(samples, 2):
        if (a[0], a[1], a[3]) != (b[0], b[1], b[3]):
            continue
        bounds = interval(samples[a] - samples[b])
        if np.isnan(value[a]) or np.isnan(value[b]) or bounds is None:
            continue
        low, high = bounds
        # the difference over the same documents, against none: paired, so known better than a or b
        distinct = differ((low, high), (0.0, 0.0))
        verdict = ("lower" if high < 0 else "higher") if distinct else "not distinguishable"
        pairs.append(
            {
                "hook": a[0],
                "expansion": a[1],
                "target_l0": a[3],
                "a": a[2],
                "b": b[2],
                "fvu_a_minus_b": value[a] - value[b],
                "low": low,
                "high": high,
                "a_is": verdict,
            }
        )
    return pairs


def findings(pairs: pd.DataFrame) -> list[str]:
    """One sentence per pair of architectures at each target L0, no stronger than its interval."""
    sentences = []
    for row in pairs.itertuples(index=False):
        subject = f"At L0 = {row.target_l0:g}, {row.expansion:g}x, {row.hook}:"
        difference = (
            f"(difference {row.fvu_a_minus_b:+.4f}, 95 % [{row.low:+.4f}, {row.high:+.4f}])"
        )
        if row.a_is == "not distinguishable":
            sentences.append(
                f"{subject} FVU of {row.a} and {row.b} not distinguishable {difference}."
            )
        else:
            sentences.append(f"{subject} {row.a} has {row.a_is} FVU than {row.b} {difference}.")
    return sentences
