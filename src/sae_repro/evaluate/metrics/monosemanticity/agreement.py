"""Agreement of a latent and a concept: Matthews' φ, the chance-corrected κ, and its null."""

from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.evaluate.quantiles import Groups, bin_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SHIFTS = 200
PERCENTILE = 0.99
GATHERED = 2**20  # entries held at once
FEW = 320  # entries up to which an index of all shifts is faster than one of each


def phi(both: Any, fires: Any, positives: Any, n: int) -> Floats:
    """Matthews correlation of two binary variables on n rows, from counts; broadcasts.

    0 where one of the two is constant, as in scikit-learn.
    """
    b, f, p = (np.asarray(x, dtype=np.float64) for x in (both, fires, positives))
    # products of roots: four counts multiplied would leave fp64's whole numbers
    scale = np.sqrt(f * (n - f)) * np.sqrt(p * (n - p))
    covariance: Floats = np.asarray(n * b - f * p)
    # in place: of a constant variable the covariance is 0, too
    np.divide(covariance, scale, out=covariance, where=scale > 0)
    return covariance


def kappa(fraction: Any, base: Any) -> Floats:
    """(P − π) / (1 − π): 1 for nothing but the concept, 0 at its base rate π < 1."""
    result: Floats = (np.asarray(fraction, dtype=np.float64) - base) / (1 - base)
    return result


def bins_of(latent: Ints, value: npt.NDArray[Any], edges_kb: Floats) -> Ints:
    """The number [n] of each value's bin among those of all latents, counted latent by latent.

    `value` are positive activations, each of its `latent`, the rows of `edges_kb` the inner edges
    of a latent's bins, as `quantile_edges` gives them.
    """
    groups = Groups(edges_kb)
    bins: Ints = latent * groups.n + groups.of(latent, bin_of(value))
    return bins


def bin_weights(bins: Ints, value: npt.NDArray[Any], latents: int, n_bins: int) -> Floats:
    """c [n] such that M = κ(Σ c·y): in each bin, its fraction of the activation mass over its size.

    `bins` as `bins_of` gives them, of `latents` with `n_bins` each. The c of a latent sum to 1, so
    that M, a weighted mean of κ_b, is κ of a weighted mean of labels. Empty bins, those between
    equal edges among them, have neither mass nor rows.
    """
    count = np.bincount(bins, minlength=latents * n_bins)
    mass: Floats = np.bincount(bins, weights=value, minlength=len(count)).astype(np.float64)
    total = mass.reshape(-1, n_bins).sum(axis=1).repeat(n_bins)
    mean = mass / np.maximum(count, 1)
    c: Floats = np.divide(mean, total, out=mean, where=total > 0).take(bins)
    return c


def bin_kappas(bins: Ints, carries: npt.NDArray[np.bool_], base_k: Floats, n_bins: int) -> Floats:
    """κ_b of each latent and bin [K, bins], whose mean by activation mass is M; NaN of empty bins.

    `bins` as `bins_of` gives them; `carries` [n] whether the row carries the latent's concept,
    `base_k` the concept's base rate.
    """
    size = len(base_k) * n_bins
    count, positive = (np.bincount(of, minlength=size) for of in (bins, bins[carries]))
    fraction = np.divide(positive, count, out=np.full(size, np.nan), where=count > 0)
    return kappa(fraction.reshape(-1, n_bins), base_k[:, None])


def null_offsets(starts: Ints, rng: np.random.Generator) -> Ints | None:
    """`SHIFTS` of the documents' starts, drawn without repeating; None where there are too few.

    `starts` holds the first row of each document; the first one's, 0, is no shift.
    """
    if len(starts) <= SHIFTS:
        return None
    return rng.choice(starts[1:], size=SHIFTS, replace=False, shuffle=False)


def shifted_sums(weight: Floats, rows: Ints, positives: Ints, offsets: Ints, n: int) -> Floats:
    """Σ_i weight_i · y[(rows_i + offset) mod n] per offset, y = 1 at `positives`, else 0.

    Looks up labels at the rows, or weights at the positives, whichever are fewer.
    """
    at, value, points = (
        (positives, np.ones(len(positives)), rows)
        if len(rows) <= len(positives)
        else (rows, weight, positives)
    )
    twice = np.zeros(2 * n)
    twice[at], twice[at + n] = value, value
    shift = offsets if points is rows else n - offsets
    sums = np.empty(len(offsets))
    step = max(1, GATHERED // max(1, len(points)))
    buffer = np.empty((min(step, len(offsets)), len(points)))
    for begin in range(0, len(offsets), step):
        part = shift[begin : begin + step]
        head = buffer[: len(part)]
        # there is nothing to clip, and without the check numpy needs no buffer
        if len(points) <= FEW:
            twice.take(part[:, None] + points, out=head, mode="clip")
        else:
            for first, row in zip(part.tolist(), head, strict=True):
                # from a view: faster than by an index of all shifts at once
                twice[first:].take(points, None, row, "clip")
        sums[begin : begin + step] = head @ weight if points is rows else head.sum(axis=1)
    return sums


def percentile(scores: Floats) -> Floats:
    """The 99th percentile of each row, as one of its scores: of 200, two lie on or above it.

    Of 201 exchangeable values the observed one then lies above it with probability 2/201 < 1 %.
    """
    percentiles: Floats = np.quantile(scores, PERCENTILE, axis=-1, method="higher")
    return percentiles
