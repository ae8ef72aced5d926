"""Coverage and fragmentation: concepts with a latent of their own, and those spread over many."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sae_repro.evaluate.metrics.monosemanticity.agreement import phi
from sae_repro.evaluate.metrics.monosemanticity.counts import Levels, at_thresholds
from sae_repro.evaluate.metrics.structure.logistic import newton
from sae_repro.evaluate.metrics.structure.sample import Sample
from sae_repro.evaluate.metrics.structure.sample_halves import Half
from sae_repro.numerics.bootstrap import interval, weights

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

COVERED = 0.5  # least φ
PRECISE, SCATTERED, TOGETHER = 0.8, 0.3, 0.8  # precision, recall of one latent, recall of all
LEAST_FIRINGS = 10  # on fit: of fewer, a latent that fires at random is precise too often
LATENTS = 512  # whose counts per concept are held at once


@dataclass
class _Best:
    """Per concept the best latent so far and its threshold, chosen on fit."""

    value_c: Floats
    latent_c: Ints
    threshold_c: Floats

    @classmethod
    def none_of(cls, concepts: int) -> "_Best":
        return cls(np.zeros(concepts), np.full(concepts, -1), np.zeros(concepts))

    def offer(self, value_ktc: Floats, threshold_kt: Floats, first: int) -> None:
        """Take what is better; of equals the first latent, at its lowest threshold."""
        levels, concepts = value_ktc.shape[1:]
        flat = value_ktc.reshape(threshold_kt.size, concepts)
        better = np.flatnonzero(flat.max(axis=0) > self.value_c)
        best = flat[:, better].argmax(axis=0)
        self.value_c[better] = flat[best, better]
        latent, level = np.divmod(best, levels)
        self.latent_c[better] = latent + first
        self.threshold_c[better] = threshold_kt[latent, level]


@dataclass
class _Precise:
    """(concept, latent, threshold) of every latent that is precise for a concept, on fit."""

    concept: list[Ints] = field(default_factory=list)
    latent: list[Ints] = field(default_factory=list)
    threshold: list[Floats] = field(default_factory=list)

    def add(self, precise_ktc: npt.NDArray[np.bool_], threshold_kt: Floats, first: int) -> None:
        """Each latent at the lowest threshold that makes it precise."""
        latent, concept = np.nonzero(precise_ktc.any(axis=1))
        lowest = precise_ktc[latent, :, concept].argmax(axis=1)
        self.concept.append(concept)
        self.latent.append(latent + first)
        self.threshold.append(threshold_kt[latent, lowest])


@dataclass(frozen=True)
class Coverage:
    """Per concept; latents and thresholds are chosen on fit, all else is measured on test."""

    latent_c: Ints
    """The latent with the largest φ; −1 where none is above 0."""
    phi_c: Floats
    precise_latent_c: Ints
    """The latent with the largest recall at precision ≥ .8; −1 where none is that precise."""
    recall_c: Floats
    """R@P80: its recall, 0 without one."""
    union_latents_c: Ints
    """Latents of precision ≥ .8."""
    union_recall_c: Floats
    """Of all of them together."""

    @property
    def covered_c(self) -> npt.NDArray[np.bool_]:
        """Whether the concept has a latent of φ ≥ .5."""
        return self.phi_c >= COVERED

    @property
    def fragmented_c(self) -> npt.NDArray[np.bool_]:
        """Whether no latent alone recalls the concept, but all of them do."""
        return (self.recall_c < SCATTERED) & (self.union_recall_c >= TOGETHER)


def coverage(sample: Sample, test: Half) -> Coverage:
    """Find each concept's latents on the fit half of `sample`, measure them on `test`."""
    bank, concepts = sample.bank, len(sample.bank.names)
    a_kn, rows_nc = csr_array(sample.a_nk.T), csr_array(bank.labels).astype(np.int32)
    positives = bank.labels.T.astype(np.int64) @ bank.fit.astype(np.int64)
    by_phi, by_recall = _Best.none_of(concepts), _Best.none_of(concepts)
    precise = _Precise()
    for first in range(0, a_kn.shape[0], LATENTS):
        levels = at_thresholds(a_kn[first : first + LATENTS], bank.fit, rows_nc)
        fires = levels.fires_kt[..., None]
        agreement = phi(levels.both_ktc, fires, positives, int(bank.fit.sum()))
        by_phi.offer(agreement, levels.threshold_kt, first)
        precise_kt = _is_precise(levels)
        recall = np.where(precise_kt, levels.both_ktc / positives, 0.0)
        by_recall.offer(recall, levels.threshold_kt, first)
        precise.add(precise_kt, levels.threshold_kt, first)
    union, union_recall = _union(test, precise)
    on_test = test.carries_cn.sum(axis=1)
    hits, firings = _counts(test, by_phi)
    return Coverage(
        latent_c=by_phi.latent_c,
        phi_c=phi(hits, firings, on_test, test.carries_cn.shape[1]),
        precise_latent_c=by_recall.latent_c,
        recall_c=_counts(test, by_recall)[0] / on_test,
        union_latents_c=union,
        union_recall_c=union_recall,
    )


def _is_precise(levels: Levels) -> npt.NDArray[np.bool_]:
    fires = levels.fires_kt[..., None]
    precise: npt.NDArray[np.bool_] = levels.both_ktc >= PRECISE * fires
    return precise & (fires >= LEAST_FIRINGS)


def _above(half: Half, latent: int, threshold: float) -> npt.NDArray[np.int32]:
    """The rows on which `latent` fires with `threshold` or more."""
    rows, values = half.column(latent)
    return rows[values >= threshold]


def _counts(test: Half, best: _Best) -> tuple[Ints, Ints]:
    """(tokens with the concept, all tokens) on which its latent reaches its threshold."""
    hits, firings = np.zeros((2, len(best.latent_c)), dtype=np.int64)
    for c in np.flatnonzero(best.latent_c >= 0):
        rows = _above(test, best.latent_c[c], best.threshold_c[c])
        hits[c], firings[c] = test.carries_cn[c, rows].sum(), len(rows)
    return hits, firings


def _union(test: Half, precise: _Precise) -> tuple[Ints, Floats]:
    """Per concept, how many latents are precise, and the recall of them all together."""
    concepts, n = test.carries_cn.shape
    concept, latent = np.concatenate(precise.concept), np.concatenate(precise.latent)
    threshold = np.concatenate(precise.threshold)
    fires_cn = np.zeros((concepts, n), dtype=bool)
    for c, k, tau in zip(concept.tolist(), latent.tolist(), threshold.tolist(), strict=True):
        fires_cn[c, _above(test, k, tau)] = True
    hits, positives = (fires_cn & test.carries_cn).sum(axis=1), test.carries_cn.sum(axis=1)
    return np.bincount(concept, minlength=concepts), hits / positives


@dataclass(frozen=True)
class HalfPoint:
    """The log10 frequency at which the logistic fit of coverage is ½."""

    log10_frequency: float | None
    """None where coverage does not rise with frequency, or all concepts are alike."""
    interval: tuple[float, float] | None
    """95 %, over resampled concepts; None if more than 5 % of these have no half-point."""


def half_point(frequency_c: Floats, covered_c: npt.NDArray[np.bool_], seed: int) -> HalfPoint:
    """Fit coverage over the log10 of the concepts' fractions of tokens."""
    x, covered = np.log10(frequency_c), covered_c.astype(np.float64)
    if not len(x):
        return HalfPoint(None, None)
    (point,) = _half_points(x, covered, np.ones((1, len(x))))
    if np.isnan(point):
        return HalfPoint(None, None)
    blocks = weights(len(x), seed, "coverage_half_point")
    bounds = interval(np.concatenate([_half_points(x, covered, w) for w in blocks]), least=0.95)
    return HalfPoint(float(point), None if bounds is None else (bounds[0], bounds[1]))


def _half_points(x_n: Floats, covered_n: Floats, weight_bn: Floats) -> Floats:
    """The half-point of the concepts weighed by each row of `weight_bn`; NaN without one."""
    rows = weight_bn.sum(axis=1, keepdims=True)
    mean = weight_bn @ x_n[:, None] / rows
    beta, intercept = newton((x_n - mean)[:, None], covered_n * weight_bn, weight_bn)
    slope, fraction = beta[:, 0], (weight_bn @ covered_n) / rows[:, 0]
    rises = (slope > 0) & (fraction > 0) & (fraction < 1)
    points = np.full(len(weight_bn), np.nan)
    points[rises] = mean[rises, 0] - intercept[rises] / slope[rises]
    return points
