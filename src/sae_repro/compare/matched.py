"""Architectures at matched L0: each one's frontier read at the targets, with paired intervals.

With several seeds, intervals are over seeds and documents (`numerics.seeds`): what is called a
difference must survive another seed. The documents are resampled, the same for all cells, so that
the difference of two architectures is far better known than either value. With one seed there is
the percentile interval of the documents alone, and no difference is claimed. The bound on the error
of reading the line (`compare.frontier`) is added in quadrature.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.frontier import Frontier, Reading, frontiers
from sae_repro.compare.resampled import Resampled, bootstrap
from sae_repro.metrics import names_in
from sae_repro.numerics.bootstrap import interval
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
    resampled: Resampled = field(default_factory=dict, repr=False)

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
    def members(self) -> list[list[Result]]:
        """Of each seed, the SAEs of the frontier's cells.

        A point that is not read may have cells with fewer seeds: there, any of them stands for it.
        """
        return [
            [r.saes[min(seed, len(r.saes) - 1)] for r in self.frontier.cells]
            for seed in range(self.frontier.seeds_at(self.reading))
        ]

    @property
    def nearest(self) -> Result:
        """The cell of the frontier whose L0 is nearest to the target."""
        return min(self.frontier.cells, key=lambda r: abs((r.metrics["l0"] or 0) - self.target))

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


def _match(f: Frontier, target: float, resampled: Resampled, resamplings: int) -> Matched:
    reading = f.at(target)
    nothing = Seeds(np.empty(0), np.empty((resamplings, 0)))
    unread = Matched(f, target, reading, np.nan, nothing, resampled=resampled)
    if not reading.readable:
        return unread
    values, samples = [], []
    for saes in unread.members:
        own = [[sae.metrics[name] for sae in saes] for name in ("l0", "fvu")]
        l0, fvu = (f.points(np.log(np.array(part, dtype=np.float64))) for part in own)
        values.append(reading.about(f.line, l0, fvu))
        drawn = [[resampled[sae.name][name] for sae in saes] for name in ("l0", "fvu")]
        l0, fvu = (f.points(np.log(np.stack(part, axis=-1))) for part in drawn)
        samples.append(reading.about(f.line, l0, fvu))
    return replace(
        unread,
        fvu=float(np.exp(reading.of(*f.line))),
        logs=Seeds(np.array(values), np.stack(samples, axis=-1)),
        documents=len(f.cells[0].saes[0].documents),
    )


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
        "usual_length": f.usual,
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
