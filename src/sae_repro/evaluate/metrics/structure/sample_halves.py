"""The fit and test halves of a sample as probes read them, and contrasts of latents on fit."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array, csr_array

from sae_repro.evaluate.metrics.structure.sample import Sample

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ENTRIES = 50_000  # features of the probes that are laid side by side: what a cache holds


@dataclass(frozen=True)
class Half:
    """The n rows of one half: activations, and who carries what."""

    centred_nd: Floats
    """x − x̄."""
    a_nk: csc_array
    carries_cn: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, sample: Sample, *, fit: bool) -> "Half":
        """The fit half, or the test half, of `sample`."""
        rows = np.flatnonzero(sample.bank.fit == fit)
        carries_cn = csr_array(sample.bank.labels.T)[:, rows].toarray()
        return cls(
            centred_nd=sample.x_nd[rows] - sample.mean_d,
            a_nk=csc_array(csr_array(sample.a_nk)[rows]),
            carries_cn=carries_cn,
        )

    def column(self, latent: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The rows on which `latent` fires, ascending, and its activations there."""
        part = slice(self.a_nk.indptr[latent], self.a_nk.indptr[latent + 1])
        return self.a_nk.indices[part], self.a_nk.data[part]


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

    @property
    def precision_ck(self) -> Floats:
        """The fraction of a latent's firing tokens that carry the concept; 0 of none."""
        precision: Floats = self.both_ck / np.maximum(self.fires_k, 1)
        return precision


def contrast(half: Half) -> Contrast:
    """The contrasts of all concepts and latents on `half`."""
    a_nk = half.a_nk.astype(np.float64)
    carries = csr_array(half.carries_cn, dtype=np.float64)
    positives = half.carries_cn.sum(axis=1)[:, None]
    negatives = half.carries_cn.shape[1] - positives

    def both_halves(b_nk: csc_array) -> tuple[Floats, Floats]:
        on = (carries @ b_nk).toarray()
        return on / np.maximum(positives, 1), (b_nk.sum(axis=0) - on) / np.maximum(negatives, 1)

    on, off = both_halves(a_nk)
    square_on, square_off = both_halves(a_nk.power(2))
    within = square_on - on**2 + square_off - off**2
    difference = on - off
    separation = np.zeros_like(on)
    np.divide(difference**2, within, out=separation, where=within > 0)
    separation[(within <= 0) & (difference != 0)] = np.inf
    fires = a_nk.astype(bool).astype(np.float64)
    return Contrast(
        fires_k=np.diff(half.a_nk.indptr).astype(np.int64),
        both_ck=np.rint((carries @ fires).toarray()).astype(np.int64),
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

    x_bmk: Floats
    positives_bm: Floats
    rows_bm: Floats


def design(half: Half, latents_bk: Ints, concept_b: Ints) -> Design:
    """The probes of `concept_b` [B], each on its own k latents `latents_bk` [B, k]."""
    n = half.carries_cn.shape[1]
    parts = []
    for latents, concept in zip(latents_bk.tolist(), concept_b.tolist(), strict=True):
        full = np.zeros((n, len(latents)))
        for j, latent in enumerate(latents):
            rows, values = half.column(latent)
            full[rows, j] = values
        active = np.flatnonzero(full.any(axis=1))
        carries = half.carries_cn[concept]
        parts.append((full[active], carries[active], int(carries.sum())))
    m = 1 + max((len(x) for x, _, _ in parts), default=0)
    x_bmk = np.zeros((len(parts), m, latents_bk.shape[1]))
    positives_bm, rows_bm = np.zeros((2, len(parts), m))
    for b, (x, carries, positives) in enumerate(parts):
        end = 1 + len(x)
        x_bmk[b, 1:end] = x
        positives_bm[b, 1:end], rows_bm[b, 1:end] = carries, 1
        positives_bm[b, 0], rows_bm[b, 0] = positives - carries.sum(), n - len(x)
    return Design(x_bmk, positives_bm, rows_bm)


def designs(halves: Halves, latents_bk: Ints, concept_b: Ints) -> tuple[Design, Design]:
    """The same probes on fit and on test."""
    fit = design(halves.fit, latents_bk, concept_b)
    return fit, design(halves.test, latents_bk, concept_b)


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
