"""The tables of losses to which laws are fitted: a family's cells over K and T, or K and L0."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sae_repro.compare.collect import Result
from sae_repro.compare.resampled import Resampled, bootstrap
from sae_repro.compare.scaling.fitted import Fitted, Table, fitted
from sae_repro.compare.scaling.isoflop import Cost
from sae_repro.compare.scaling.law import PARAMETERS
from sae_repro.compare.tables import unit_in
from sae_repro.metrics import find
from sae_repro.metrics.metric import BOUNDS
from sae_repro.params.operations import step_operations
from sae_repro.params.scaling import LEAST_VALUES, SPARSITY, Family

METRICS = (
    "fvu", "kl", "dead_fraction_never", "monosemantic_fraction", "coverage", "probe_loss",
    "shared_fraction",
)  # fmt: skip
"""Metrics whose laws are fitted, where every cell has them; of what is better higher, 1 − it."""


FLAT = 1e-9
"""Of the largest loss: a metric that varies by less has no law."""


@dataclass(frozen=True)
class Surface:
    """Cells of one family that differ in their width, and in their tokens or their sparsity."""

    family: str
    at: str
    """What its cells have in common: `k = 16`, or a number of tokens."""
    second: Literal["T", "L0"]
    cells: tuple[Result, ...]
    held_out: str | None
    """The name of the cell that the law has to predict."""

    @property
    def name(self) -> str:
        """Family, and what its cells have in common, for captions."""
        return f"{self.family}, {self.at}" if self.at else self.family

    @property
    def cost(self) -> Cost:
        """Operations of a training per token, which are linear in K."""
        (x0, c0), (x1, c1) = (
            (r.measured["d_sae"], step_operations(r.cell, r.measured["d_in"], 1))
            for r in (min(self.cells, key=_width), max(self.cells, key=_width))
        )
        per_latent = (c1 - c0) / (x1 - x0)
        return Cost(c0 - per_latent * x0, per_latent)

    def table(self, metric: str, resampled: Resampled) -> Table | None:
        """The loss of every cell, 1 − the metric where higher is better; None if one lacks it."""
        seeds = [np.array(r.by_seed(metric)) for r in self.cells]
        if not all(map(len, seeds)):
            return None
        documents = [
            [resampled[sae.name][metric] for sae in r.saes if metric in resampled[sae.name]]
            for r in self.cells
        ]
        known = all(len(draws) == len(of) for draws, of in zip(documents, seeds, strict=True))
        means = np.stack([np.mean(d, axis=0) for d in documents], axis=1) if known else None
        turned = is_turned(metric)
        if turned:
            seeds, means = [1 - v for v in seeds], None if means is None else 1 - means
        t = [r.trained_tokens if self.second == "T" else r.metrics["l0"] for r in self.cells]
        return Table(
            tuple(r.name for r in self.cells),
            np.array([_width(r) for r in self.cells], dtype=np.float64),
            np.array(t, dtype=np.float64),
            tuple(seeds),
            means,
        )


@dataclass(frozen=True)
class FittedSurface:
    """A surface with the law of one metric."""

    surface: Surface
    metric: str
    table: Table
    """All its cells, the one that is held out as well."""
    fit: Fitted

    @property
    def held_out(self) -> int | None:
        """The number in `table` of the cell that the law was not fitted to."""
        names = self.table.names
        return names.index(self.surface.held_out) if self.surface.held_out in names else None


def is_turned(metric: str) -> bool:
    """Whether the law is that of 1 − the metric, as higher is better."""
    row = find(metric)
    return row is not None and row.better == "higher" and row.unit in BOUNDS


def surfaces(families: Mapping[str, Family], results: Sequence[Result]) -> Iterator[Surface]:
    """Those of all families; cells that failed are no points of them."""
    for name, family in families.items():
        axes = family.scaling.axes
        sparsity = next((axis for axis in SPARSITY if axis in axes), None)
        tokens = axes.get("tokens", ())
        if len(tokens) >= LEAST_VALUES and sparsity is None:
            yield _surface(name, "", family, results, {}, "tokens")
        elif len(tokens) >= LEAST_VALUES and sparsity is not None:
            for value in axes[sparsity]:
                at = f"{sparsity} = {value:g}"
                yield _surface(name, at, family, results, {sparsity: value}, "tokens")
        if sparsity and len(axes[sparsity]) >= LEAST_VALUES:
            at = f"{tokens[-1]:,} {unit_in(results)}" if tokens else ""
            longest = {"tokens": tokens[-1]} if tokens else {}
            yield _surface(name, at, family, results, longest, sparsity)


def _surface(
    name: str,
    at: str,
    family: Family,
    results: Sequence[Result],
    fixed: Mapping[str, float],
    axis: str,
) -> Surface:
    """The cells whose values are the `fixed` ones, over their width and `axis`."""
    cells = {
        cell: choices
        for cell, choices in family.cells.items()
        if all(choices[key] == value for key, value in fixed.items())
    }
    largest = max(cells, key=lambda cell: (cells[cell]["expansion"], cells[cell][axis]))
    return Surface(
        name,
        at,
        "T" if axis == "tokens" else "L0",
        tuple(r for r in results if r.name in cells and r.ok),
        largest if family.scaling.hold_out else None,
    )


def fits(
    families: Mapping[str, Family], results: Sequence[Result], resamplings: int, seed: int
) -> Iterator[FittedSurface]:
    """Each surface with each of `METRICS` that its cells have, where there are cells enough."""
    for surface in surfaces(families, results):
        if len(surface.cells) <= PARAMETERS:
            continue
        resampled = bootstrap(surface.cells, resamplings, seed)
        for metric in METRICS:
            table = surface.table(metric, resampled)
            if table is None or np.ptp(table.means) <= FLAT * np.abs(table.means).max():
                continue
            names = table.names
            rest = table
            if surface.held_out in names:
                rest = table.without(names.index(surface.held_out))
            fit = fitted(rest, resamplings, seed, surface.family, surface.at, metric)
            if fit is not None:  # there may be one cell less
                yield FittedSurface(surface, metric, table, fit)


def _width(r: Result) -> int:
    return int(r.measured["d_sae"])
