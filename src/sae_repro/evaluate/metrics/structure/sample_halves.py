"""The fit and test halves of a sample as probes read them, and contrasts of latents on fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array, csr_array

from sae_repro.evaluate.metrics.structure.sample import Sample

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ENTRIES = 100_000  # features of the probes that are laid side by side: what a cache holds
BINS = 64  # of a latent's activations, as many in each


@dataclass(frozen=True)
class Half:
    """The n rows of one half: activations, and who carries what."""

    centred_nd: Floats
    """x − x̄."""
    a_nk: csc_array
    carries_cn: npt.NDArray[np.bool_]
    positives_c: Ints
    """Rows that carry each concept."""

    @classmethod
    def of(cls, sample: Sample, *, fit: bool) -> "Half":
        """The fit half, or the test half, of `sample`."""
        of_half = sample.bank.fit == fit
        rows = np.flatnonzero(of_half)
        carries_cn = csr_array(sample.bank.labels.T)[:, rows].toarray()
        return cls(
            centred_nd=sample.x_nd[rows] - sample.mean_d,
            a_nk=_rows_of(sample.a_nk, of_half),
            carries_cn=carries_cn,
            positives_c=carries_cn.sum(axis=1),
        )

    def column(self, latent: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The rows on which `latent` fires, ascending, and its activations there."""
        part = slice(self.a_nk.indptr[latent], self.a_nk.indptr[latent + 1])
        return self.a_nk.indices[part], self.a_nk.data[part]

    @cached_property
    def wide_nk(self) -> csc_array:
        """`a_nk` in fp64."""
        return self.a_nk.astype(np.float64)

    def scores(self, latents_bk: Ints, beta_bk: Floats) -> csc_array:
        """β·a of B probes, each on its own k latents, on the rows where these fire: [n, B]."""
        b, k = latents_bk.shape
        beta = beta_bk.ravel(), latents_bk.ravel(), np.arange(b + 1) * k
        return self.wide_nk @ csc_array(beta, shape=(self.a_nk.shape[1], b))


def _rows_of(a_nk: csc_array, rows: npt.NDArray[np.bool_]) -> csc_array:
    """Those rows alone, column by column as they stand."""
    at = np.flatnonzero(rows.take(a_nk.indices))
    place = (np.cumsum(rows) - 1).astype(a_nk.indices.dtype)
    begin = np.searchsorted(at, a_nk.indptr).astype(a_nk.indptr.dtype)
    parts = a_nk.data.take(at), place.take(a_nk.indices.take(at)), begin
    return csc_array(parts, shape=(int(rows.sum()), a_nk.shape[1]))


@dataclass(frozen=True)
class Contrast:
    """Differences of latents between the tokens that carry a concept and those that do not."""

    fires_k: Ints
    both_ck: Ints
    """Tokens of concept c on which latent k fires."""
    difference_ck: Floats
    """Mean activation on the concept's tokens, less that on all others."""
    separation_ck: Floats
    """The difference's square over the variance around both means, the two weighing the same."""

    @cached_property
    def precision_ck(self) -> Floats:
        """The fraction of a latent's firing tokens that carry the concept; 0 of none."""
        precision: Floats = self.both_ck / np.maximum(self.fires_k, 1)
        return precision


def contrast(half: Half) -> Contrast:
    """The contrasts of all concepts and latents on `half`."""
    wide_nk = half.wide_nk
    a_nk = csr_array(wide_nk)
    carries = csr_array(half.carries_cn, dtype=np.float64)
    positives = half.carries_cn.sum(axis=1)[:, None]
    negatives = half.carries_cn.shape[1] - positives

    def both_halves(data: Floats, by_column: Floats) -> tuple[Floats, Floats]:
        on = (carries @ csr_array((data, a_nk.indices, a_nk.indptr), a_nk.shape)).toarray()
        whole = csc_array((by_column, wide_nk.indices, wide_nk.indptr), wide_nk.shape)
        off = whole.sum(axis=0) - on
        on /= np.maximum(positives, 1)
        off /= np.maximum(negatives, 1)
        return on, off

    # in place: each of these is as large as the result
    on, off = both_halves(a_nk.data, wide_nk.data)
    within, square_off = both_halves(np.square(a_nk.data), np.square(wide_nk.data))
    within -= np.square(on)
    within += square_off
    within -= np.square(off, out=square_off)
    difference = np.subtract(on, off, out=on)
    separation = np.square(difference, out=off)
    apart = difference != 0
    np.divide(separation, within, out=separation, where=within > 0)
    separation[within <= 0] = 0.0
    separation[(within <= 0) & apart] = np.inf
    fires = csr_array((np.ones(a_nk.nnz, np.int32), a_nk.indices, a_nk.indptr), a_nk.shape)
    return Contrast(
        fires_k=np.diff(half.a_nk.indptr).astype(np.int64),
        both_ck=(carries.astype(np.int32) @ fires).toarray().astype(np.int64),
        difference_ck=difference,
        separation_ck=separation,
    )


@dataclass(frozen=True)
class Halves:
    """The input of every structure metric: fitted on one half, measured on the other."""

    fit: Half
    test: Half
    contrast: Contrast
    """On fit."""

    @classmethod
    def of(cls, sample: Sample) -> "Halves":
        """Both halves of `sample`."""
        fit, test = (Half.of(sample, fit=which) for which in (True, False))
        return cls(fit, test, contrast(fit))


@dataclass(frozen=True)
class Design:
    """B probes side by side: each one's rows on which any of its k latents fires, and one more.

    That one, the first, stands for all rows on which they are silent. Rows are filled up with some
    that count 0.
    """

    x_bkm: Floats
    positives_bm: Floats
    rows_bm: Floats


def design(half: Half, latents_bk: Ints, concept_b: Ints) -> Design:
    """The probes of `concept_b` [B], each on its own k latents `latents_bk` [B, k]."""
    n, (b, k) = half.carries_cn.shape[1], latents_bk.shape
    columns_bk = [[half.column(latent) for latent in row] for row in latents_bk.tolist()]
    rows = [_any_of([rows for rows, _ in columns], n) for columns in columns_bk]
    length = np.array([len(of_probe) for of_probe in rows])
    m = 1 + int(length.max(initial=0))
    x_bkm, positives_bm, number = np.zeros((b, k, m)), np.zeros((b, m)), np.empty(n, dtype=np.int64)
    for i, (columns, of_probe) in enumerate(zip(columns_bk, rows, strict=True)):
        positives_bm[i, 1 : 1 + len(of_probe)] = half.carries_cn[concept_b[i]].take(of_probe)
        if k == 1:
            x_bkm[i, 0, 1 : 1 + len(of_probe)] = columns[0][1]
            continue
        number[of_probe] = np.arange(1, 1 + len(of_probe))
        for x_m, (rows_of_one, values) in zip(x_bkm[i], columns, strict=True):
            x_m[number.take(rows_of_one)] = values
    rows_bm = (np.arange(m) <= length[:, None]).astype(np.float64)
    positives_bm[:, 0] = half.positives_c[concept_b] - positives_bm.sum(axis=1)
    rows_bm[:, 0] = n - length
    return Design(x_bkm, positives_bm, rows_bm)


def binned(half: Half, latents_b: Ints, concept_b: Ints) -> Design:
    """Probes on one latent each, of few rows: means of rows of like activation, class by class.

    The loss is convex in x, so that no probe loses less on the rows themselves than on their means.
    """
    b, n = len(latents_b), half.carries_cn.shape[1]
    x, positives, rows = np.zeros((3, b, 1 + 2 * BINS))
    order = np.argsort(latents_b, kind="stable")
    different, first = np.unique(latents_b[order], return_index=True)
    for latent, of_it in zip(different.tolist(), np.split(order, first[1:]), strict=False):
        fires, values = half.column(latent)
        if not len(fires):
            continue
        ascending, bins = np.argsort(values), min(BINS, len(fires))
        begin = np.arange(bins) * len(fires) // bins
        value = values[ascending].astype(np.float64)
        carries = half.carries_cn[concept_b[of_it]].take(fires[ascending], axis=1)
        on = np.add.reduceat(carries.view(np.int8), begin, axis=1, dtype=np.int64)
        sum_on = np.add.reduceat(carries * value, begin, axis=1)
        off = np.diff(begin, append=len(fires)) - on
        sum_off = np.add.reduceat(value, begin) - sum_on
        x[of_it, 1 : 1 + bins] = sum_on / np.maximum(on, 1)
        x[of_it, 1 + BINS : 1 + BINS + bins] = sum_off / np.maximum(off, 1)
        positives[of_it, 1 : 1 + bins] = rows[of_it, 1 : 1 + bins] = on
        rows[of_it, 1 + BINS : 1 + BINS + bins] = off
    positives[:, 0] = half.positives_c[concept_b] - positives.sum(axis=1)
    rows[:, 0] = n - rows.sum(axis=1)
    return Design(x[:, None], positives, rows)


def _any_of(rows: list[npt.NDArray[np.int32]], n: int) -> npt.NDArray[Any]:
    """The different rows of all lists, ascending, of 0 … n − 1; each list ascends."""
    if len(rows) == 1:
        return rows[0]
    found = np.zeros(n, dtype=bool)  # marked: several times faster than sorted
    for one in rows:
        found[one] = True
    return np.flatnonzero(found)


def chunks(half: Half, latents_bk: Ints) -> Iterator[Ints]:
    """The numbers of all B problems, those of like size together, a bounded number at a time."""
    size = np.diff(half.a_nk.indptr)[latents_bk].sum(axis=1) + 1
    order = np.argsort(size, kind="stable")
    begin = 0
    while begin < len(order):
        # ascending: with the next problem taken in, all would be as large as it
        area = size[order[begin:]] * np.arange(1, len(order) - begin + 1) * latents_bk.shape[1]
        end = begin + max(1, int(np.searchsorted(area, ENTRIES, side="right")))
        yield order[begin:end]
        begin = end
