"""Standings of architectures in a metric at one target L0, and which differences hold.

Every metric is read where FVU is, on the frontier's line: linear in log L0. A difference holds
where another seed and, of metrics that are sums over documents, other documents would not turn it:
p-values, corrected for all pairs of the place (Holm). Of other metrics the seeds' part must leave
out 0, and so must the cells' own intervals, over latents, concepts or pairs of seeds. One seed
holds nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from sae_repro.compare.collect import Result
from sae_repro.compare.differences import Estimate
from sae_repro.compare.frontier import Floats
from sae_repro.compare.matched import Matched
from sae_repro.metrics import find
from sae_repro.metrics.metric import BOUNDS
from sae_repro.numerics.intervals import Z_95, Interval
from sae_repro.numerics.multiplicity import LEVEL, holm
from sae_repro.numerics.seeds import LEAST_SEEDS, Seeds, half_width, p_value, parts, seeds_part

LOGS = ("kl", "kl_unseen", "fvu_unseen")
"""Metrics above 0 whose seeds scatter in proportion to their size: compared as logarithms."""


@dataclass(frozen=True)
class Standing:
    """An architecture's value of a metric at a target L0, with what is known of it."""

    of: Matched
    metric: str
    common: Estimate | None = None
    """Of a rate over what is testable: that over what is testable in all compared SAEs."""

    @property
    def name(self) -> str:
        """The architecture, however long it trained."""
        return self.of.frontier.family

    @cached_property
    def value(self) -> float:
        """NaN where it was not measured."""
        if self.common is not None:
            return self.common.value
        return self.of.fvu if self.metric == "fvu" else float(self._read(self._means))

    @cached_property
    def bounds(self) -> Interval | None:
        """The 95 % interval: over seeds and documents, or the cells' own; None of one seed's."""
        if self.metric == "fvu":
            return self.of.bounds
        if self.seeds is not None and self.of.several:
            half = float(half_width(self.seeds, documents=self.of.documents))
            if self.metric in LOGS:
                return self.value * float(np.exp(-half)), self.value * float(np.exp(half))
            return self._inside(self.value - half, self.value + half)
        if self.own is not None:
            return self._inside(*self.own)
        return None

    @cached_property
    def seeds(self) -> Seeds | None:
        """Its seeds on resampled documents, of `LOGS` their logarithms.

        None of a metric that is no sum over documents.
        """
        if self.metric == "fvu":
            return self.of.fvus
        if self.common is not None:
            return None
        values = self.by_seed
        sampled = []
        for saes in self.of.members:
            drawn = [self.of.resampled[sae.name].get(self.metric) for sae in saes]
            if not len(values) or any(one is None for one in drawn):
                return None
            sampled.append(self._about(_log_l0(saes), np.stack([d for d in drawn if d is not None],
                                                               axis=-1)))  # fmt: skip
        found = Seeds(values, np.stack(sampled, axis=-1))
        if self.metric in LOGS:
            with np.errstate(invalid="ignore", divide="ignore"):
                found = Seeds(np.log(found.values), np.log(found.resampled))
        return found if np.isfinite(found.resampled).all() else None

    @cached_property
    def by_seed(self) -> Floats:
        """The metric of each seed; empty where the seeds have none of their own."""
        if self.common is not None:
            return np.array(self.common.by_seed)
        values = np.array([
            self._about(_log_l0(saes), np.array([s.metrics.get(self.metric) for s in saes], float))
            for saes in self.of.members
        ])  # fmt: skip
        return values if np.isfinite(values).all() else np.empty(0)

    @cached_property
    def own(self) -> Interval | None:
        """The cells' own interval at the target."""
        if self.common is not None:
            low, high = map(float, self.common.interval)
            return (low, high) if np.isfinite([low, high]).all() else None
        ends = [[(r.interval(self.metric) or (np.nan, np.nan))[end]
                 for r in self.of.frontier.cells] for end in (0, 1)]  # fmt: skip
        low, high = (float(self._read(np.array(end, float))) for end in ends)
        return (low, high) if np.isfinite([low, high]).all() else None

    @cached_property
    def _means(self) -> Floats:
        return self.of.frontier.values(self.metric)

    def _read(self, values: Floats) -> Floats:
        f = self.of.frontier
        return self.of.reading.of(f.line[0], f.points(values))

    def _about(self, log_l0: Floats, values: Floats) -> Floats:
        f = self.of.frontier
        line = f.line[0], f.points(self._means)
        return self.of.reading.about(line, f.points(log_l0), f.points(values))

    def _inside(self, low: float, high: float) -> Interval:
        metric = find(self.metric)
        least, most = BOUNDS.get(metric.unit if metric else "", (-np.inf, np.inf))
        return max(least, low), min(most, high)


def _log_l0(saes: Sequence[Result]) -> Floats:
    return np.log(np.array([sae.metrics["l0"] for sae in saes], dtype=np.float64))


def p_of(a: Standing, b: Standing) -> float:
    """How likely so large a difference is where there is none; NaN where nothing can be said."""
    difference = a.value - b.value
    if not (a.of.several and b.of.several and np.isfinite(difference)):
        return float("nan")
    if a.seeds is not None and b.seeds is not None:
        error = float(np.hypot(a.of.error, b.of.error)) if a.metric == "fvu" else 0.0
        if a.metric in LOGS:
            difference = float(a.seeds.values.mean() - b.seeds.values.mean())
        known = parts(a.seeds, b.seeds, documents=a.of.documents)
        return p_value(difference, *known, error=error)
    p = []
    if min(len(a.by_seed), len(b.by_seed)) >= LEAST_SEEDS:
        p.append(p_value(difference, seeds_part(a.by_seed, b.by_seed)))
    if a.own is not None and b.own is not None:
        scales = [(high - low) / (2 * Z_95) for low, high in (a.own, b.own)]
        p.append(p_value(difference, (np.hypot(scales[0], scales[1]), np.asarray(np.inf))))
    return max(p, default=float("nan"))


Better = Mapping[tuple[str, str], bool | None]
"""Of (a, b): whether a is better; None where it is undecided."""


def better(standings: Sequence[Standing]) -> dict[tuple[str, str], bool | None]:
    """Every ordered pair of architectures at one place, in one metric that has a better side."""
    metric = find(standings[0].metric) if standings else None
    sign = {"lower": -1, "higher": 1}.get(metric.better if metric else "none", 0)
    pairs = list(combinations(standings, 2))
    adjusted = holm({(a.name, b.name): p_of(a, b) for a, b in pairs})
    said: dict[tuple[str, str], bool | None] = {}
    for a, b in pairs:
        holds = adjusted[a.name, b.name] < LEVEL and sign != 0
        won = (a.value - b.value) * sign > 0
        said[a.name, b.name] = won if holds else None
        said[b.name, a.name] = not won if holds else None
    return said


def leaders(standings: Sequence[Standing], said: Better) -> list[str]:
    """The best ones: every one of them better than every other, at most half of all; or none."""
    metric = find(standings[0].metric) if standings else None
    lower = metric is not None and metric.better == "lower"
    known = [s for s in standings if np.isfinite(s.value)]
    names = [s.name for s in sorted(known, key=lambda s: s.value if lower else -s.value)]
    for n in range(1, len(names) // 2 + 1):
        if all(said[a, b] for a in names[:n] for b in names[n:]):
            return names[:n]
    return []
