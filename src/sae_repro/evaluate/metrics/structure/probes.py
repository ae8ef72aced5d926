"""k-sparse logistic probes of concepts, and the split sets of latents that they choose."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_repro.evaluate.metrics.structure.logistic import balanced, cross_entropy, nearly, newton
from sae_repro.evaluate.metrics.structure.sample_halves import Design, Halves, chunks, design

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST, GAIN = 10, 0.03  # latents of a split set; the F1 that one more must bring
CANDIDATES = 8  # latents per concept whose one-latent probes are fitted
CLOSE = 0.01  # nats: of those above the least loss by more, the probe is fitted in fp32 alone


@dataclass(frozen=True)
class Split:
    """The split set of one concept."""

    latents: Ints
    """From the largest |mean difference| on; empty where none fires."""
    f1: float
    """Of its probe, on test."""


def ranked(score_ck: Floats, m: int) -> Ints:
    """The m latents of largest score per concept, of equals the first: [C, min(m, K)]."""
    concepts, latents = score_ck.shape
    m = min(m, latents)
    if not m or not concepts:
        return np.empty((concepts, m), dtype=np.int64)
    least = np.partition(score_ck, latents - m, axis=1)[:, latents - m, None]
    concept, latent = np.nonzero(score_ck >= least)  # more than m where some equal the least
    order = np.lexsort((-score_ck[concept, latent], concept))  # stable: of equals the first
    begin = np.searchsorted(concept, np.arange(concepts))
    best: Ints = latent[order[begin[:, None] + np.arange(m)]]
    return best


def probe_auc(halves: Halves, sizes: Sequence[int]) -> dict[int, Floats]:
    """Area under the ROC curve on test, per concept, of a balanced probe on each number of latents.

    A probe starts from where the one before it in `sizes` has ended: on some of its own latents, if
    they ascend.
    """
    difference_ck = halves.contrast.difference_ck
    ranking = ranked(np.abs(difference_ck), max(sizes))
    before = np.zeros_like(ranking, dtype=np.float64), np.zeros(len(ranking))
    aucs = {}
    for k in sizes:
        latents, auc = ranking[:, :k], np.full(len(ranking), np.nan)
        for chunk in chunks(halves.fit, latents):
            if k == 1:  # the order of the scores is all that counts: β's sign, the difference's own
                beta = np.sign(np.take_along_axis(difference_ck[chunk], latents[chunk], axis=1))
            else:
                fit = design(halves.fit, latents[chunk], chunk)
                start = before[0][chunk, : latents.shape[1]], before[1][chunk]
                weights = balanced(fit.positives_bm, fit.rows_bm)
                beta, before[1][chunk] = newton(fit.x_bkm, *weights, start)
                before[0][chunk, : latents.shape[1]] = beta
            test = design(halves.test, latents[chunk], chunk)
            parts = zip(_scores(test, beta), test.positives_bm, test.rows_bm, strict=True)
            auc[chunk] = [roc_area(*part) for part in parts]
        aucs[k] = auc
    return aucs


def probe_loss(halves: Halves) -> tuple[Floats, Ints]:
    """(cross-entropy in nats on test, latent) of each concept's best balanced probe on one latent.

    Best on fit, among the `CANDIDATES` whose activations separate the concept most. The
    pre-activation that the probe reads is the rectified one, a: what lies below 0 is not stored.
    """
    latents = ranked(halves.contrast.separation_ck, CANDIDATES)
    concept = np.repeat(np.arange(len(latents)), latents.shape[1])
    single = latents.reshape(-1, 1)
    beta, intercept, loss = np.full((3, len(single)), np.inf)
    near = np.zeros(len(single), dtype=bool)
    for chunk in chunks(halves.fit, single):
        fit = design(halves.fit, single[chunk], concept[chunk])
        weights = balanced(fit.positives_bm, fit.rows_bm)
        found = nearly(fit.x_bkm, *weights)
        loss[chunk], near[chunk] = found.loss, found.found
        beta[chunk], intercept[chunk] = found.beta[:, 0], found.intercept
    # the others lose by more than the steps that are left can change
    least = np.where(near, loss, np.inf).reshape(latents.shape).min(axis=1)
    close = np.flatnonzero(~near | (loss <= least[concept] + CLOSE))
    loss = np.full(len(single), np.inf)
    for part in chunks(halves.fit, single[close]):
        chunk = close[part]
        fit = design(halves.fit, single[chunk], concept[chunk])
        weights = balanced(fit.positives_bm, fit.rows_bm)
        solution = newton(fit.x_bkm, *weights, (beta[chunk, None], intercept[chunk]))
        beta[chunk], intercept[chunk] = solution[0][:, 0], solution[1]
        loss[chunk] = _loss(fit, *solution)
    best = loss.reshape(latents.shape).argmin(axis=1) + np.arange(0, len(single), latents.shape[1])
    test_loss = np.full(len(latents), np.nan)
    for chunk in chunks(halves.test, single[best]):
        probes = best[chunk]
        test = design(halves.test, single[probes], concept[probes])
        test_loss[chunk] = _loss(test, beta[probes, None], intercept[probes])
    return test_loss, single[best, 0]


def _loss(probe: Design, beta_bk: Floats, intercept_b: Floats) -> Floats:
    weights = balanced(probe.positives_bm, probe.rows_bm)
    return cross_entropy(_scores(probe, beta_bk) + intercept_b[:, None], *weights)


def split_sets(halves: Halves, concepts: Ints, candidates: list[Ints]) -> list[Split]:
    """The split set of each concept, of its own candidates in their order.

    The smallest k ≤ `MOST` such that one latent more raises the F1 on fit by less than `GAIN`.
    Probes are not balanced; they call positive what they give a probability above ½.
    """
    splits = [Split(np.empty(0, dtype=np.int64), np.nan) for _ in candidates]
    before = np.full(len(candidates), -np.inf)
    start = np.zeros((len(candidates), MOST)), np.zeros(len(candidates))
    running = np.arange(len(candidates))
    for k in range(1, MOST + 1):
        running = np.array([i for i in running if len(candidates[i]) >= k], dtype=np.int64)
        if not len(running):
            break
        latents = np.stack([candidates[i][:k] for i in running])
        # the two searches of a parent often try the same latents
        problems = np.column_stack([concepts[running], latents])
        different, first, place = np.unique(
            problems, axis=0, return_index=True, return_inverse=True
        )
        # on the latents of the probe before, and one more
        begin = start[0][running[first], :k], start[1][running[first]]
        f1, beta, intercept = _f1(halves, different[:, 1:], different[:, 0], begin)
        start[0][running, :k], start[1][running] = beta[place], intercept[place]
        fit, test = f1[:, place]
        better = fit - before[running] >= GAIN
        for i in np.flatnonzero(better):
            splits[running[i]] = Split(latents[i], float(test[i]))
        before[running] = fit
        running = running[better]
    return splits


def _f1(
    halves: Halves, latents_bk: Ints, concept_b: Ints, start: tuple[Floats, Floats]
) -> tuple[Floats, Floats, Floats]:
    """(F1 on fit and on test [2, B], β [B, k], intercept [B]) of each concept's probe."""
    f1, beta, intercept = np.zeros((2, len(latents_bk))), start[0].copy(), start[1].copy()
    for chunk in chunks(halves.fit, latents_bk):
        fit, test = (
            design(half, latents_bk[chunk], concept_b[chunk]) for half in (halves.fit, halves.test)
        )
        begin = beta[chunk], intercept[chunk]
        beta[chunk], intercept[chunk] = newton(fit.x_bkm, fit.positives_bm, fit.rows_bm, begin)
        for i, probe in enumerate((fit, test)):
            called = _scores(probe, beta[chunk]) + intercept[chunk, None] > 0
            hits = (probe.positives_bm * called).sum(axis=1)
            sizes = (probe.rows_bm * called).sum(axis=1) + probe.positives_bm.sum(axis=1)
            f1[i, chunk] = 2 * hits / sizes
    return f1, beta, intercept


def roc_area(score: Floats, positives: Floats, rows: Floats) -> float:
    """P(a positive scores above a negative) + ½ P(as much), from counts per entry; NaN without."""
    order = np.argsort(score)
    ascending = score[order]
    first = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))  # of equal scores
    hits, all_rows = (np.add.reduceat(part[order], first) for part in (positives, rows))
    misses = all_rows - hits
    pairs = hits.sum() * misses.sum()
    above = (hits * (misses.cumsum() - misses / 2)).sum()
    return float(above / pairs) if pairs else float("nan")


def _scores(probe: Design, beta_bk: Floats) -> Floats:
    """β·x of each entry, [B, m]."""
    scores: Floats = (beta_bk[:, None] @ probe.x_bkm)[:, 0]
    return scores
