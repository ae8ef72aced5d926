"""Metric cards: does a metric tell what was learnt from what was not, and is it more than FVU?

A card is measured on the study's own cells and controls, and on the known atoms of `control`. A
metric that does not separate trained cells from controls is left out of findings
(`flagged_metrics`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.training_lengths import Lengths, lengths_of, shorter_of
from sae_repro.metrics import METRICS, Metric, find
from sae_repro.numerics.intervals import Z_95
from sae_repro.numerics.ranks import partial_spearman, pearson, ranks, spearman
from sae_repro.params.joint import by_model
from sae_repro.remarks import TOLERANCE

APART = 2.0
"""Units of noise by which a cell must be better than a control."""
ENOUGH = 0.8
"""Fraction of the trained cells that must be better than every control."""
COPY = 0.95
"""|rank correlation| with FVU, L0 or K over cells from which on a metric is a copy of it."""
LEAST_CELLS = 8
"""Fewer have no rank correlations."""
CONFOUNDERS = ("l0", "K", "fvu")

SEPARATES, USELESS = "separates", "useless"
FAILURE, UNCONTROLLED = "failure", "no control"


@dataclass(frozen=True)
class Card:
    """What is known of one metric; NaN and empty where the study has nothing to measure it on."""

    name: str
    metric: Metric
    noise: float
    """Median over cells of the standard deviation under re-sampling of what it draws."""
    noise_seeds: float
    """Root mean square over cells of the standard deviation over seeds."""
    separation: Mapping[str, float]
    """Per control, the median over cells of how much better they are, in units of noise."""
    cells: int
    """Trained cells that have the metric, and a control to compare with that has it."""
    above: int
    """Those of them that are better than every such control by more than `APART`."""
    truth: float
    """Rank correlation with F1 of matched atoms within the worlds; > 0: better where F1 is."""
    trials: int
    per_doubling: float
    """Change per doubling of the training tokens in units of noise; > 0: for the better."""
    lengths: int
    """Cells that differ only in their training tokens."""
    correlation: Mapping[str, tuple[float, float]]
    """With each of `CONFOUNDERS` over trained cells: rank correlation, and given the others."""

    @property
    def mark(self) -> str:
        """Whether it separates trained cells from all controls that apply to it."""
        if self.metric.controls == "none":
            return FAILURE
        if not self.cells:
            return UNCONTROLLED
        return SEPARATES if self.above >= ENOUGH * self.cells else USELESS

    @property
    def copies(self) -> list[str]:
        """Those of `CONFOUNDERS` by which it ranks the cells, whichever way round."""
        return [
            name
            for name, (plain, _) in self.correlation.items()
            if name != self.name and abs(plain) >= COPY
        ]


def flagged_metrics(results: Sequence[Result]) -> set[str]:
    """Metrics that do not tell trained cells from controls: no finding may rest on them."""
    return {card.name for card in cards(results) if card.mark == USELESS}


def cards(results: Sequence[Result], trials: pd.DataFrame | None = None) -> list[Card]:
    """A card for each metric with a better direction that was measured, as the registry has them.

    `trials`: trials.csv of the stage `control`.
    """
    trained = [r for r in results if r.ok and not r.negative and _is_sparse(r)]
    lengths = lengths_of(trained)
    shorter = shorter_of(trained, lengths)
    trained = [r for r in trained if r.name not in shorter]
    controls = [r for r in results if r.ok and r.negative]
    rows = list(METRICS)
    found = {
        name: metric
        for r in [*trained, *shorter.values()]
        for name, value in r.metrics.items()
        if value is not None and (metric := find(name)) and metric.better != "none"
    }
    ordered = sorted(found.items(), key=lambda item: rows.index(item[1]))
    study = _Study(
        trained, controls, trials, _confounders(trained), lengths, list(shorter.values())
    )
    return [_card(*item, study) for item in ordered]


@dataclass(frozen=True)
class _Study:
    """What all cards are measured on."""

    trained: list[Result]
    controls: list[Result]
    trials: pd.DataFrame | None
    confounders: pd.DataFrame
    """L0, K and FVU by cell."""
    lengths: Lengths
    shorter: list[Result]
    """Cells trained on fewer tokens than their like: for `lengths` alone."""


def _is_sparse(result: Result) -> bool:
    """Whether fewer latents fire per token than a basis has directions."""
    return bool((result.metrics["l0"] or 0.0) < result.measured["d_in"])


def _card(
    name: str,
    metric: Metric,
    study: _Study,
) -> Card:
    sign, trained, controls = 1 if metric.better == "higher" else -1, study.trained, study.controls
    measured = {
        r.name: _Measured.of(r, name, metric) for r in [*trained, *study.shorter, *controls]
    }
    # what is as sparse as some control: at fewer or more latents per token, few metrics compare
    as_sparse = [r for r in trained if any(_same_l0(r, c) for c in controls)] or trained
    cells = [one for r in trained if (one := measured[r.name])]
    drawn = [cell.drawn for cell in cells if np.isfinite(cell.drawn)]
    seeds = _root_mean_square([cell.seeds for cell in cells if np.isfinite(cell.seeds)])
    better = {
        control.name: [
            (r.name, sign * one.above(other, seeds))
            for r in as_sparse
            if (one := measured[r.name]) and _comparable(metric, r, control)
        ]
        for control in controls
        if (other := measured[control.name])
    }
    least: dict[str, float] = {}
    for control in controls:
        if _applies(metric, control):
            for cell, z in better.get(control.name, ()):
                least[cell] = min(z, least.get(cell, math.inf))
    noise = float(np.median(drawn)) if drawn else math.nan
    truth, n_trials = _truth(name, sign, study.trials)
    slope, n_lengths = _per_doubling(study.lengths, measured)
    unit = math.hypot(noise if drawn else 0.0, seeds)
    return Card(
        name=name,
        metric=metric,
        noise=noise,
        noise_seeds=seeds,
        separation={c: float(np.median([z for _, z in zs])) for c, zs in better.items() if zs},
        cells=len(least),
        above=sum(z > APART for z in least.values()),
        truth=truth,
        trials=n_trials,
        per_doubling=sign * slope / unit if unit else math.nan,
        lengths=n_lengths,
        correlation=_correlations(name, trained, study.confounders),
    )


@dataclass(frozen=True)
class _Measured:
    """A cell's value of a metric, and the standard deviations of one SAE's."""

    value: float
    drawn: float
    """Under re-sampling of what the metric draws; NaN where it has no interval."""
    seeds: float
    """Over seeds; 0 of what has none, NaN of one seed."""
    n: int
    """SAEs of which `value` is the mean."""
    own_draws: bool
    """Whether each SAE draws anew, as latents; documents and concepts are the same for all."""

    @classmethod
    def of(cls, result: Result, name: str, metric: Metric) -> "_Measured | None":
        value = result.metrics.get(name)
        if value is None:
            return None
        ones = result.measured.get("seeds", {".": result.measured}).values()
        bounds = [one["intervals"].get(name) for one in ones if one["status"] == "ok"]
        widths = [(high - low) / (2 * Z_95) for low, high in filter(None, bounds)]
        sd = 0.0 if result.cell.is_basis else result.sd.get(name)
        return cls(
            value,
            drawn=_root_mean_square(widths) if widths else math.nan,
            seeds=math.nan if sd is None else sd,
            n=max(1, len(result.by_seed(name))),
            own_draws=metric.interval.endswith("over latents"),
        )

    def error(self, seeds: float) -> float:
        """Standard error of `value`; `seeds` is the deviation over seeds of what has one seed."""
        drawn = 0.0 if math.isnan(self.drawn) else self.drawn
        over_seeds = seeds if math.isnan(self.seeds) else self.seeds
        return math.hypot(
            drawn / math.sqrt(self.n if self.own_draws else 1), over_seeds / math.sqrt(self.n)
        )

    def above(self, control: "_Measured", seeds: float) -> float:
        """How far it lies above a control, in standard errors of their difference."""
        difference = self.value - control.value
        noise = math.hypot(self.error(seeds), control.error(seeds))
        if noise:
            return difference / noise
        return math.copysign(math.inf, difference) if difference else 0.0


def _root_mean_square(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values else 0.0


def _comparable(metric: Metric, cell: Result, control: Result) -> bool:
    """Whether they read the same place, and, where activations are measured, the same activations.

    The activations of a model on random weights are others.
    """
    if not control.cell.is_basis and not _same_l0(cell, control):
        return False
    place = by_model if metric.controls == "all" else str
    return place(cell.hook) == place(control.hook)


def _same_l0(cell: Result, control: Result) -> bool:
    """Whether a control that is no basis has as many latents on per token."""
    a, b = cell.metrics["l0"] or 0.0, control.metrics["l0"] or 0.0
    return not control.cell.is_basis and b > 0 and abs(a / b - 1) <= TOLERANCE


def _applies(metric: Metric, control: Result) -> bool:
    return metric.controls == "all" or (metric.controls == "sparse" and not control.cell.is_basis)


def _truth(name: str, sign: int, trials: pd.DataFrame | None) -> tuple[float, int]:
    """(rank correlation of the metric with F1 over the trials of a world, trials)."""
    if trials is None or name not in trials:
        return math.nan, 0
    frame = trials[["world", name, "f1"]].dropna()
    parts = [group for _, group in frame.groupby("world", sort=False) if len(group) > 2]
    if not parts:
        return math.nan, 0
    # ranks within a world, from -1 to 1: how hard the worlds are must not count
    a, b = (
        np.concatenate([2 * (ranks(part[column]) - 1) / (len(part) - 1) - 1 for part in parts])
        for column in (name, "f1")
    )
    return sign * pearson(a, b), len(a)


def _per_doubling(lengths: Lengths, measured: Mapping[str, _Measured | None]) -> tuple[float, int]:
    """(mean slope over log2 of the training tokens, cells of all slopes)."""
    slopes, cells = [], 0
    for group in lengths:
        points = [(x, one.value) for name, x in group.items() if (one := measured[name])]
        if len({x for x, _ in points}) > 1:
            x, y = np.array(points).T
            x = x - x.mean()
            slopes.append(float((x * y).sum() / np.square(x).sum()))
            cells += len(points)
    return (float(np.mean(slopes)), cells) if slopes else (math.nan, 0)


def _confounders(trained: Sequence[Result]) -> pd.DataFrame:
    """L0, K and FVU of the trained cells on the hook that has most of them."""
    hooks = [r.hook for r in trained]
    return pd.DataFrame(
        {r.name: {"l0": r.metrics["l0"], "K": r.measured["d_sae"], "fvu": r.metrics["fvu"]}
         for r in trained if r.hook == max(hooks, key=hooks.count)}
    ).T  # fmt: skip


def _correlations(
    name: str, trained: Sequence[Result], confounders: pd.DataFrame
) -> dict[str, tuple[float, float]]:
    values = pd.Series({r.name: r.metrics.get(name) for r in trained}, dtype=float)
    values = values.reindex(confounders.index).dropna()
    if len(values) < LEAST_CELLS:
        return {}
    columns = {c: confounders.loc[values.index, c].to_numpy(float) for c in CONFOUNDERS}
    return {
        c: (
            spearman(values, column),
            partial_spearman(values, column, [columns[o] for o in CONFOUNDERS if o != c]),
        )
        for c, column in columns.items()
    }
