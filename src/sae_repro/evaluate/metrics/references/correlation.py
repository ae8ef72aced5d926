"""Correlation of activations over tokens: with the latents of small references, and of one another.

Both read a sample of whole documents, chosen by hash, so that batches and shards change nothing but
the rounding of fp64 sums.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csc_array, csr_array, hstack, vstack
from torch import Tensor

from sae_repro.autoencoders import SAE
from sae_repro.evaluate.codes import Codes
from sae_repro.evaluate.held_out import Batch
from sae_repro.evaluate.summary import Summary
from sae_repro.numerics.bootstrap import mean_interval
from sae_repro.numerics.hashing import uniform_hash
from sae_repro.numerics.random import generator
from sae_repro.readers.shards import DOCUMENT, POSITION, row_key

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TOKENS = 16_384  # of the sample, about
ENCODED = 512  # tokens encoded at once: their code stays in a processor's cache
MAPPED = 256  # latents of the map
DENSE = 0.1  # fraction of nonzeros from which on dense products are faster
CONSTANT = 1e-12  # variance, as a fraction of the mean square, that rounding alone can leave


@dataclass(frozen=True)
class Rows:
    """Activations x [n, D] of sampled documents, by document and position."""

    x_nd: Tensor
    document: Ints
    position: Ints

    def find(self, index: npt.NDArray[np.int32]) -> Ints:
        """The row of each of `index` [m, ≥ 2]; −1 for tokens of other documents."""
        key = row_key(self.document, self.position)
        if not len(key):
            return np.full(len(index), -1)
        target = row_key(index[:, DOCUMENT], index[:, POSITION])
        at = np.minimum(np.searchsorted(key, target), len(key) - 1)
        return np.where(key[at] == target, at, -1)


@dataclass(frozen=True)
class CorrelationMap:
    """Latents [M] in clustered order, and the correlations [M, M] of their activations."""

    latent: Ints
    correlation: Floats


def sampled_rows(batches: Callable[[], Iterable[Batch]], tokens: int, seed: int) -> Rows:
    """The rows of the documents whose hash of (seed, document) is below 16,384 / `tokens`.

    `tokens` is the number of rows streamed; with fewer than 16,384 all documents are in.
    """
    parts, indices = [], []
    for x_nd, index in batches():
        chosen = uniform_hash(seed, "references", index[:, DOCUMENT]) < TOKENS / tokens
        parts.append(x_nd[torch.from_numpy(chosen).to(x_nd.device)])
        indices.append(index[chosen])
    index = np.concatenate(indices)
    order = np.lexsort((index[:, POSITION], index[:, DOCUMENT]))
    x_nd = torch.cat(parts)
    at = torch.from_numpy(order).to(x_nd.device)
    document, position = index[order, :2].astype(np.int64).T
    return Rows(x_nd[at], document, position)


@dataclass(frozen=True)
class EncodedReferences:
    """The references' codes of the sampled rows: the same for every SAE on a hook."""

    widths: tuple[int, ...]
    small: dict[int, csr_array]
    """z [n, width] by width, of those that were trained; fp64."""
    both_nr: csr_array
    """All of them side by side, then once more, shifted."""

    @classmethod
    def of(cls, references: Mapping[int, SAE | None], rows: Rows, seed: int) -> "EncodedReferences":
        """Of the SAEs by width, None where there is none; `seed` draws the shift."""
        small = {width: _encoded(sae, rows.x_nd) for width, sae in references.items() if sae}
        both_nr = csr_array(hstack(_joined(list(small.values()), rows, seed), format="csr"))
        return cls(tuple(references), small, both_nr)


def correlations(
    codes: Codes,
    references: EncodedReferences,
    rows: Rows,
    fired_k: npt.NDArray[Any],
    seed: int,
) -> tuple["pd.DataFrame", CorrelationMap, Summary]:
    """max_j corr(a_r, a_j) over the latents j for each reference latent r, and a map of the j.

    A row per reference latent that fires in `rows`: width, reference_latent, latent (the j of the
    maximum), correlation, null. The null is the same maximum after the references' rows were
    shifted circularly by a document's start, drawn at random, so that every token meets another
    document's: it grows with K by chance. It is missing where there is one document. Per width, the
    metrics are the means of both over r, with a bootstrap over r. Latents that don't vary over
    `rows` correlate with nothing: on either side they are left out, those of references counted.

    `codes` stream the activations of the j, of all tokens; their scale does not matter.

    The map holds the ≤ 256 latents that fire most often by `fired_k` [K] (tokens on which each
    fires; the lower of equals), as far as they vary over `rows`.
    """
    chosen = np.sort(np.argsort(-np.asarray(fired_k), kind="stable")[:MAPPED])
    a_nk = _sampled(codes, rows, len(fired_k))
    frame = _maxima(references.small, correlations_of_columns(references.both_nr, a_nk))
    a_nm = csr_array(csc_array(a_nk)[:, chosen])
    return (
        frame,
        _clustered(chosen, correlations_of_columns(a_nm, a_nm)),
        _summary(frame, references.small, references.widths, rows, seed),
    )


def _encoded(sae: SAE, x_nd: Tensor) -> csr_array:
    """The nonzeros of z [n, K], fp64."""
    with torch.no_grad():
        parts = [csr_array(sae.encode(x).double().cpu().numpy()) for x in x_nd.split(ENCODED)]
    return csr_array(vstack(parts, format="csr"))


def _sampled(codes: Codes, rows: Rows, k: int) -> csr_array:
    """The code [n, K] of `rows`, fp64."""
    at: list[Ints] = []
    latents: list[Ints] = []
    values: list[Floats] = []
    for code in codes():
        row = rows.find(code.index)[code.row]
        inside = row >= 0
        at.append(row[inside])
        latents.append(code.latent[inside])
        values.append(code.value[inside].astype(np.float64))
    places = np.concatenate(at), np.concatenate(latents)
    return csr_array((np.concatenate(values), places), shape=(len(rows.document), k))


def _joined(codes: list[csr_array], rows: Rows, seed: int) -> tuple[csr_array, csr_array]:
    """All references side by side [n, R], and the same shifted; no columns where that can't be."""
    nothing = csr_array((len(rows.document), 0))
    if not codes:
        return nothing, nothing
    aligned = csr_array(hstack(codes, format="csr"))
    starts = np.flatnonzero(np.diff(rows.document))
    if not len(starts):
        return aligned, nothing
    by = int(generator(seed, "correlation").choice(starts)) + 1
    return aligned, csr_array(vstack([aligned[by:], aligned[:by]], format="csr"))


def correlations_of_columns(r_nr: csr_array, a_nk: csr_array) -> Floats:
    """Of the columns of two codes of the same rows, [R, K]; NaN where one does not vary."""
    n = max(1, r_nr.shape[0])
    (total_r, deviation_r), (total_k, deviation_k) = _moments(r_nr), _moments(a_nk)
    covariance = _product(r_nr, a_nk) / n - np.outer(total_r, total_k) / n**2
    result: Floats = np.clip(covariance / np.outer(deviation_r, deviation_k), -1, 1)
    return result


def _moments(a_nk: csr_array) -> tuple[Floats, Floats]:
    """(sum, standard deviation) of each column; NaN for one that does not vary."""
    n, k = a_nk.shape
    total: Floats = np.bincount(a_nk.indices, a_nk.data, k).astype(np.float64)
    square = np.bincount(a_nk.indices, a_nk.data**2, k) / max(1, n)
    variance = square - (total / max(1, n)) ** 2
    return total, np.sqrt(np.where(variance > CONSTANT * square, variance, np.nan))


def _product(r_nr: csr_array, a_nk: csr_array) -> Floats:
    """rᵀ·a [R, K]; the densest of codes by a dense product, which is faster then."""
    if min(code.nnz / max(1, np.prod(code.shape)) for code in (r_nr, a_nk)) > DENSE:
        a = a_nk.toarray()
        # of a matrix with itself BLAS computes one half
        dense: Floats = (a if r_nr is a_nk else r_nr.toarray()).T @ a
        return dense
    sparse: Floats = (r_nr.T @ a_nk).toarray()
    return sparse


def _maxima(small: Mapping[int, csr_array], both_rk: Floats) -> "pd.DataFrame":
    """The row per reference latent that varies; `both_rk`: aligned, then shifted if there are."""
    import pandas as pd

    latents = [(width, latent) for width, code in small.items() for latent in range(code.shape[1])]
    aligned, shifted = both_rk[: len(latents)], both_rk[len(latents) :]
    frame = pd.DataFrame(latents, columns=["width", "reference_latent"], dtype=np.int64)
    varying = np.flatnonzero((~np.isnan(aligned)).any(axis=1))
    frame["latent"] = np.where(np.isnan(aligned), -np.inf, aligned).argmax(axis=1)
    frame["correlation"] = np.fmax.reduce(aligned, axis=1)
    frame["null"] = np.fmax.reduce(shifted, axis=1) if len(shifted) else np.nan
    return frame.iloc[varying].reset_index(drop=True)


def _summary(
    frame: "pd.DataFrame",
    small: Mapping[int, csr_array],
    widths: Iterable[int],
    rows: Rows,
    seed: int,
) -> Summary:
    counts = {
        "correlation_tokens": len(rows.document),
        "correlation_documents": len(np.unique(rows.document)),
    }
    metrics: dict[str, float | None] = {}
    intervals: dict[str, list[float]] = {}
    for width in widths:
        of_width = frame[frame["width"] == width]
        total = small[width].shape[1] if width in small else 0
        counts[f"reference_latents_{width}"] = len(of_width)
        counts[f"reference_latents_left_out_{width}"] = total - len(of_width)
        for name, column in (("", "correlation"), ("_null", "null")):
            name = f"mean_max_correlation{name}_{width}"
            values = of_width[column].dropna().to_numpy(np.float64)
            metrics[name] = float(values.mean()) if len(values) else None
            if len(values):
                intervals[name] = mean_interval(values, seed, name)
    return Summary(metrics, counts, intervals)


def _clustered(latent: Ints, correlation: Floats) -> CorrelationMap:
    """Similar ones side by side: the leaves of average linkage on 1 − correlation.

    Neighbours are as near as the tree allows (Bar-Joseph et al. 2001, "Fast optimal leaf ordering
    for hierarchical clustering").
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    varies = ~np.isnan(correlation.diagonal())
    latent, correlation = latent[varies], correlation[np.ix_(varies, varies)]
    if len(latent) > 1:
        tree = linkage(squareform(1 - correlation, checks=False), "average", optimal_ordering=True)
        order = leaves_list(tree)
        latent, correlation = latent[order], correlation[np.ix_(order, order)]
    return CorrelationMap(latent, correlation)
