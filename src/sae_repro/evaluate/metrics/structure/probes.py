"""k-sparse logistic probes of concepts, and the split sets of latents that they choose."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array

from sae_repro.evaluate.metrics.structure.logistic import balanced, cross_entropy, nearly, newton
from sae_repro.evaluate.metrics.structure.sample_halves import (
    BINS,
    ENTRIES,
    Design,
    Half,
    Halves,
    binned,
    chunks,
    design,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST, GAIN = 10, 0.03  # latents of a split set; the F1 that one more must bring
CANDIDATES = 8  # latents per concept whose one-latent probes are fitted
EXACT = 1e-12  # gradient of a probe whose loss is a result: the loss on test changes with β
SLACK = 1e-3  # nats: what rounding and the ridge may take from a bound of the loss


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
        latents = ranking[:, :k]
        if k == 1:  # the order of the scores is all that counts: β's sign, the difference's own
            beta = np.sign(np.take_along_axis(difference_ck, latents, axis=1))
        else:
            beta = before[0][:, : latents.shape[1]]
            for chunk in chunks(halves.fit, latents):
                fit = design(halves.fit, latents[chunk], chunk)
                start = beta[chunk], before[1][chunk]
                weights = balanced(fit.positives_bm, fit.rows_bm)
                beta[chunk], before[1][chunk] = newton(fit.x_bkm, *weights, start)
        aucs[k] = _areas(halves.test, halves.test.scores(latents, beta))
    return aucs


def _areas(half: Half, scores_nc: csc_array) -> Floats:
    """Area under the ROC curve of every concept's scores; those not stored are 0."""
    areas, n = np.empty(scores_nc.shape[1]), half.carries_cn.shape[1]
    for c, positives in enumerate(half.positives_c.tolist()):
        stored = slice(*scores_nc.indptr[c : c + 2])
        score, carries = scores_nc.data[stored], half.carries_cn[c].take(scores_nc.indices[stored])
        on, off = score[carries], score[~carries]
        areas[c] = roc_area(on, off, (positives - len(on), n - positives - len(off)))
    return areas


def probe_loss(halves: Halves) -> tuple[Floats, Ints]:
    """(cross-entropy in nats on test, latent) of each concept's best balanced probe on one latent.

    Best on fit, among the `CANDIDATES` whose activations separate the concept most. The
    pre-activation that the probe reads is the rectified one, a: what lies below 0 is not stored.
    """
    latents = ranked(halves.contrast.separation_ck, CANDIDATES)
    concept = np.repeat(np.arange(len(latents)), latents.shape[1])
    single = latents.reshape(-1, 1)
    at_least, beta, intercept = _bounds(halves.fit, single[:, 0], concept)
    loss = np.full(len(single), np.inf)

    def fit(problems: Ints) -> None:
        for part in chunks(halves.fit, single[problems]):
            chunk = problems[part]
            probe = design(halves.fit, single[chunk], concept[chunk])
            weights = balanced(probe.positives_bm, probe.rows_bm)
            start = beta[chunk, None], intercept[chunk]
            solution = newton(probe.x_bkm, *weights, start, EXACT)
            beta[chunk], intercept[chunk] = solution[0][:, 0], solution[1]
            loss[chunk] = _loss(probe, *solution)

    def first_of_least(of_each: Floats) -> Ints:
        least: Ints = of_each.reshape(latents.shape).argmin(axis=1)
        return least + np.arange(0, len(single), latents.shape[1])

    fit(first_of_least(at_least))
    reached = loss.reshape(latents.shape).min(axis=1)
    fit(np.flatnonzero(np.isinf(loss) & (at_least <= reached[concept] + SLACK)))
    best = first_of_least(loss)
    test_loss = np.full(len(latents), np.nan)
    for chunk in chunks(halves.test, single[best]):
        probes = best[chunk]
        test = design(halves.test, single[probes], concept[probes])
        test_loss[chunk] = _loss(test, beta[probes, None], intercept[probes])
    return test_loss, single[best, 0]


def _bounds(half: Half, latents_b: Ints, concept_b: Ints) -> tuple[Floats, Floats, Floats]:
    """(what the probe on one latent loses at least, about; its β and intercept, nearly), [B] each.

    −∞ where that is not known.
    """
    at_least, beta, intercept = np.empty((3, len(latents_b)))
    size = max(1, ENTRIES // (2 * BINS))
    for begin in range(0, len(latents_b), size):
        some = slice(begin, begin + size)
        probe = binned(half, latents_b[some], concept_b[some])
        found = nearly(probe.x_bkm, *balanced(probe.positives_bm, probe.rows_bm))
        at_least[some] = np.where(found.found, found.loss, -np.inf)
        beta[some], intercept[some] = found.beta[:, 0], found.intercept
    return at_least, beta, intercept


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
    beta, intercept = start[0].copy(), start[1].copy()
    for chunk in chunks(halves.fit, latents_bk):
        fit = design(halves.fit, latents_bk[chunk], concept_b[chunk])
        begin = beta[chunk], intercept[chunk]
        beta[chunk], intercept[chunk] = newton(fit.x_bkm, fit.positives_bm, fit.rows_bm, begin)
    f1 = np.stack(
        [
            _f1_of(half, half.scores(latents_bk, beta), intercept, concept_b)
            for half in (halves.fit, halves.test)
        ]
    )
    return f1, beta, intercept


def _f1_of(half: Half, scores_nb: csc_array, intercept_b: Floats, concept_b: Ints) -> Floats:
    """F1 of calling `concept_b` where score and intercept exceed 0; scores not stored are 0."""
    problems, stored = len(concept_b), np.diff(scores_nb.indptr)
    problem = np.repeat(np.arange(problems), stored)
    called = scores_nb.data + intercept_b[problem] > 0
    carries = half.carries_cn[concept_b[problem], scores_nb.indices]
    all_called, hits, carrying = (
        np.bincount(problem[which], minlength=problems)
        for which in (called, called & carries, carries)
    )
    positives, silent = half.positives_c[concept_b], intercept_b > 0
    hits += silent * (positives - carrying)
    all_called += silent * (half.carries_cn.shape[1] - stored)
    f1: Floats = 2 * hits / (all_called + positives)
    return f1


def roc_area(on: Floats, off: Floats, silent: tuple[int, int] = (0, 0)) -> float:
    """P(a positive scores above a negative) + ½ P(as much); NaN without either.

    From the scores of positives and of negatives, and how many more of each score 0.
    """
    on, off = np.sort(on), np.sort(off)  # apart: several times faster than the order of all
    some_on, some_off = silent
    pairs = (len(on) + some_on) * (len(off) + some_off)
    # twice the count of each part, to have whole numbers
    below = sum(int(np.searchsorted(off, on, side).sum()) for side in ("left", "right"))
    off_below = sum(int(np.searchsorted(off, 0.0, side)) for side in ("left", "right"))
    on_below = sum(int(np.searchsorted(on, 0.0, side)) for side in ("left", "right"))
    below += some_on * off_below + some_off * (2 * len(on) - on_below) + some_on * some_off
    return below / 2 / pairs if pairs else float("nan")


def _scores(probe: Design, beta_bk: Floats) -> Floats:
    """β·x of each entry, [B, m]."""
    scores: Floats = (beta_bk[:, None] @ probe.x_bkm)[:, 0]
    return scores
