"""k-sparse logistic probes of concepts, and the split sets of latents that they choose."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_repro.evaluate.metrics.structure.logistic import balanced, cross_entropy, newton
from sae_repro.evaluate.metrics.structure.sample_halves import Design, Halves, chunks, designs

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST, GAIN = 10, 0.03  # latents of a split set; the F1 that one more must bring
CANDIDATES = 8  # latents per concept whose one-latent probes are fitted


@dataclass(frozen=True)
class Split:
    """The split set of one concept."""

    latents: Ints
    """From the largest |mean difference| on; empty where none fires."""
    f1: float
    """Of its probe, on test."""


def ranked(score_ck: Floats, m: int) -> Ints:
    """The m latents of largest score per concept, of equals the first: [C, min(m, K)]."""
    return np.argsort(-score_ck, axis=1, kind="stable")[:, :m]


def probe_auc(halves: Halves, k: int) -> Floats:
    """Area under the ROC curve on test, per concept, of a balanced probe on k latents."""
    difference_ck = halves.contrast.difference_ck
    latents = ranked(np.abs(difference_ck), k)
    auc = np.full(len(latents), np.nan)
    for chunk in chunks(halves.fit, latents):
        fit, test = designs(halves, latents[chunk], chunk)
        if k == 1:  # the order of the scores is all that counts: β's sign, the difference's own
            beta = np.sign(np.take_along_axis(difference_ck[chunk], latents[chunk], axis=1))
        else:
            beta, _ = newton(fit.x_bmk, *balanced(fit.positives_bm, fit.rows_bm))
        parts = zip(_scores(test, beta), test.positives_bm, test.rows_bm, strict=True)
        auc[chunk] = [roc_area(*part) for part in parts]
    return auc


def probe_loss(halves: Halves) -> tuple[Floats, Ints]:
    """(cross-entropy in nats on test, latent) of each concept's best balanced probe on one latent.

    Best on fit, among the `CANDIDATES` whose activations separate the concept most. The
    pre-activation that the probe reads is the rectified one, a: what lies below 0 is not stored.
    """
    latents = ranked(halves.contrast.separation_ck, CANDIDATES)
    concept = np.repeat(np.arange(len(latents)), latents.shape[1])
    single = latents.reshape(-1, 1)
    loss = np.full((2, len(single)), np.nan)
    for chunk in chunks(halves.fit, single):
        fit, test = designs(halves, single[chunk], concept[chunk])
        weights = balanced(fit.positives_bm, fit.rows_bm)
        beta, intercept = newton(fit.x_bmk, *weights)
        loss[0, chunk] = cross_entropy(_scores(fit, beta) + intercept[:, None], *weights)
        weights = balanced(test.positives_bm, test.rows_bm)
        loss[1, chunk] = cross_entropy(_scores(test, beta) + intercept[:, None], *weights)
    fit_cj, test_cj = loss.reshape(2, *latents.shape)
    best = fit_cj.argmin(axis=1)[:, None]
    best_of_each = (np.take_along_axis(part, best, axis=1)[:, 0] for part in (test_cj, latents))
    test_loss, latent = best_of_each
    return test_loss, latent


def split_sets(halves: Halves, concepts: Ints, candidates: list[Ints]) -> list[Split]:
    """The split set of each concept, of its own candidates in their order.

    The smallest k ≤ `MOST` such that one latent more raises the F1 on fit by less than `GAIN`.
    Probes are not balanced; they call positive what they give a probability above ½.
    """
    splits = [Split(np.empty(0, dtype=np.int64), np.nan) for _ in candidates]
    before = np.full(len(candidates), -np.inf)
    running = np.arange(len(candidates))
    for k in range(1, MOST + 1):
        running = np.array([i for i in running if len(candidates[i]) >= k], dtype=np.int64)
        if not len(running):
            break
        latents = np.stack([candidates[i][:k] for i in running])
        fit, test = _f1(halves, latents, concepts[running])
        better = fit - before[running] >= GAIN
        for i in np.flatnonzero(better):
            splits[running[i]] = Split(latents[i], float(test[i]))
        before[running] = fit
        running = running[better]
    return splits


def _f1(halves: Halves, latents_bk: Ints, concept_b: Ints) -> tuple[Floats, Floats]:
    """F1 on fit and on test of the probe of each concept on its latents."""
    f1 = np.zeros((2, len(latents_bk)))
    for chunk in chunks(halves.fit, latents_bk):
        fit, test = designs(halves, latents_bk[chunk], concept_b[chunk])
        beta, intercept = newton(fit.x_bmk, fit.positives_bm, fit.rows_bm)
        for i, probe in enumerate((fit, test)):
            called = _scores(probe, beta) + intercept[:, None] > 0
            hits = (probe.positives_bm * called).sum(axis=1)
            sizes = (probe.rows_bm * called).sum(axis=1) + probe.positives_bm.sum(axis=1)
            f1[i, chunk] = 2 * hits / sizes
    return f1[0], f1[1]


def roc_area(score: Floats, positives: Floats, rows: Floats) -> float:
    """P(a positive scores above a negative) + ½ P(as much), from counts per entry; NaN without."""
    _, place = np.unique(score, return_inverse=True)
    hits = np.bincount(place, weights=positives)
    misses = np.bincount(place, weights=rows - positives)
    pairs = hits.sum() * misses.sum()
    above = (hits * (misses.cumsum() - misses / 2)).sum()
    return float(above / pairs) if pairs else float("nan")


def _scores(probe: Design, beta_bk: Floats) -> Floats:
    """β·x of each entry, [B, m]."""
    scores: Floats = (probe.x_bmk @ beta_bk[..., None])[..., 0]
    return scores
