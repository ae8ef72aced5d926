"""Counts of tokens on the fit half, of latents above thresholds and together with concepts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sae_repro.evaluate.quantiles import BINS, Groups, bin_of, quantile_edges

Ints = npt.NDArray[np.int64]

THRESHOLDS = 8  # 0 and the inner eighths of the positive activations


@dataclass(frozen=True)
class Levels:
    """Counts on the fit half, per latent k and threshold t, from 0 up."""

    histogram_kb: Ints
    """Positive activations per bin of `quantiles`."""
    threshold_kt: npt.NDArray[np.float64]
    fires_kt: Ints
    both_ktc: Ints
    """Of the tokens on which the latent reaches the threshold, those that carry concept c."""


def part_of(
    a_kn: csr_array, rows: npt.NDArray[np.bool_]
) -> tuple[Ints, npt.NDArray[np.int32], npt.NDArray[Any]]:
    """(latent, row, value) of each nonzero on the rows of `rows` [N], latent by latent."""
    at = np.flatnonzero(rows.take(a_kn.indices))
    count_k = np.diff(np.searchsorted(at, a_kn.indptr))
    latent = np.repeat(np.arange(a_kn.shape[0]), count_k)
    return latent, a_kn.indices.take(at), a_kn.data.take(at)


def at_thresholds(a_kn: csr_array, fit: npt.NDArray[np.bool_], rows_nc: csr_array) -> Levels:
    """Count on the rows of `fit` [N]; `rows_nc`, int32, are the concepts of every row."""
    k = a_kn.shape[0]
    latent, row, value = part_of(a_kn, fit)
    bins = bin_of(value)
    histogram_kb = np.bincount(latent * BINS + bins, minlength=k * BINS).reshape(k, BINS)
    edges_kt = quantile_edges(histogram_kb, THRESHOLDS)
    # a row per latent and threshold, in one product: that which each nonzero reaches as its last
    last = latent * THRESHOLDS + Groups(edges_kt).of(latent, bins)
    fires_kt = np.bincount(last, minlength=k * THRESHOLDS).reshape(k, THRESHOLDS)
    ones = np.ones(len(last), dtype=np.int32)
    carried = csr_array((ones, (last, row)), (k * THRESHOLDS, len(fit))) @ rows_nc
    both_ktc = carried.toarray().astype(np.int64).reshape(k, THRESHOLDS, -1)
    for level in range(THRESHOLDS - 1, 0, -1):  # reaching it means to reach all that are lower
        fires_kt[:, level - 1] += fires_kt[:, level]
        both_ktc[:, level - 1] += both_ktc[:, level]
    return Levels(
        histogram_kb=histogram_kb,
        threshold_kt=np.pad(edges_kt, ((0, 0), (1, 0))),
        fires_kt=fires_kt,
        both_ktc=both_ktc,
    )
