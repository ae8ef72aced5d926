"""A law of a table of cells, with what seeds, documents and the law's own error leave open.

The losses are resampled, the law is fitted again to each resampling, and an interval is of its 95 %
percentiles. Two things are resampled. Documents: all cells see the same. Seeds: the scatter of the
seeds about their cell's mean is pooled over the cells, as two or three seeds of one cell say little
of it, and each cell's mean gets the mean of as many draws from the pool as it has seeds. Where the
cells are farther from the law than their seeds explain, the draws are larger by that factor, the
misfit (R. T. Birge 1932): an error of the law itself is an error of what it predicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sae_repro.compare.scaling.law import PARAMETERS, Floats, Law, fit
from sae_repro.numerics.bootstrap import interval
from sae_repro.numerics.random import generator


@dataclass(frozen=True)
class Table:
    """The losses of n cells that differ in their width and in one thing more."""

    names: tuple[str, ...]
    x: Floats
    """K of each cell [n]."""
    t: Floats
    """T, or L0, of each cell [n]."""
    seeds: tuple[Floats, ...]
    """The loss of each of a cell's SAEs, cell by cell."""
    documents: Floats | None = None
    """The mean over a cell's SAEs on resampled documents [R, n]; None where it isn't known."""

    def without(self, left_out: int) -> "Table":
        """The table without one cell."""
        kept = [i for i in range(len(self.names)) if i != left_out]
        return Table(
            tuple(self.names[i] for i in kept),
            self.x[kept],
            self.t[kept],
            tuple(self.seeds[i] for i in kept),
            None if self.documents is None else self.documents[:, kept],
        )

    @cached_property
    def means(self) -> Floats:
        """The loss of each cell: the mean over its SAEs [n]."""
        return np.array([values.mean() for values in self.seeds])

    @property
    def relative(self) -> bool:
        """Whether residuals are relative to the losses, which none can be where one is 0."""
        return bool((self.means > 0).all())

    @property
    def scale(self) -> Floats:
        """What residuals are relative to [n]: the losses, or 1."""
        return self.means if self.relative else np.ones(len(self.means))

    @property
    def over_documents(self) -> bool:
        """Whether losses on resampled documents are known; a handful of documents has none."""
        return self.documents is not None and bool(np.isfinite(self.documents).all())


@dataclass(frozen=True)
class Fitted:
    """A law and its resamplings."""

    table: Table
    law: Law
    """One law, of the losses as they are."""
    losses: Floats
    """Losses of the cells on resampled seeds and documents [R, n]."""
    resampled: Law
    """The laws of `losses` [R]."""
    same_documents: Law
    """Laws of resampled seeds on the documents as they are [R]: what a further cell is held to."""
    noise: Floats
    """Relative deviations, or absolute ones (`Table.scale`), from which a draw takes an SAE's."""
    misfit: float
    """The factor, at least 1, by which cells are farther from the law than seeds explain."""
    seed: int
    name: tuple[str, ...]

    @cached_property
    def residuals(self) -> Floats:
        """(loss − law) of each cell, relative to the loss [n]."""
        return _residuals(self.table, self.law)

    def predicted(self, x: float, t: float, seeds: int) -> tuple[float, list[float]]:
        """(loss, 95 % interval) of the mean of a further cell's `seeds` SAEs, same documents."""
        value = float(self.law.at(x, t)[0])
        laws = self.same_documents.at(x, t)
        draws = _draws(self.noise, [seeds], len(laws), self.seed, *self.name, "predicted")[:, 0]
        found = interval(laws * (1 + draws) if self.table.relative else laws + draws)
        assert found is not None  # a law is finite wherever it is fitted
        return value, found


def fitted(table: Table, resamplings: int, seed: int, *name: str) -> Fitted | None:
    """The law of `table`; None with too few cells to have anything left beside its parameters."""
    n = len(table.names)
    if n <= PARAMETERS:
        return None
    weight = 1 / table.scale
    law = fit(table.x, table.t, table.means[None], weight)
    noise, misfit = _noise(table, _residuals(table, law))
    counts = [len(values) for values in table.seeds]
    shifts = table.scale * _draws(noise, counts, resamplings, seed, *name)
    same = fit(table.x, table.t, table.means + shifts, weight)
    if table.documents is None or not table.over_documents:
        return Fitted(table, law, table.means + shifts, same, same, noise, misfit, seed, name)
    losses = table.documents + shifts
    resampled = fit(table.x, table.t, losses, weight)
    return Fitted(table, law, losses, resampled, same, noise, misfit, seed, name)


def _residuals(table: Table, law: Law) -> Floats:
    return (table.means - law.at(table.x, table.t)) / table.scale


def _noise(table: Table, residuals: Floats) -> tuple[Floats, float]:
    """(deviations of one SAE [draws], misfit) of the seeds' scatter; without any, of residuals."""
    freedom = len(residuals) - PARAMETERS
    seeds = [
        (values - mean) / scale * np.sqrt(len(values) / (len(values) - 1))
        for values, mean, scale in zip(table.seeds, table.means, table.scale, strict=True)
        if len(values) > 1
    ]
    pooled = np.concatenate(seeds) if seeds else np.zeros(0)
    variance = float(np.square(pooled).mean()) if len(pooled) else 0.0
    if not variance:
        counts = np.array([len(values) for values in table.seeds])
        return residuals * np.sqrt(counts) * np.sqrt(len(residuals) / freedom), 1.0
    chances = np.array([len(values) for values in table.seeds]) / variance
    misfit = float(np.sqrt(max(1.0, (np.square(residuals) * chances).sum() / freedom)))
    return pooled * misfit, misfit


def _draws(noise: Floats, counts: Sequence[int], resamplings: int, seed: int, *name: str) -> Floats:
    """Means of `counts` draws from `noise`, a mean per cell: [R, n]."""
    rng = generator(seed, "compare", "scaling", *name)
    return np.stack(
        [noise[rng.integers(len(noise), size=(resamplings, n))].mean(axis=1) for n in counts],
        axis=1,
    )
