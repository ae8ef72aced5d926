"""Monosemanticity against a concept bank: the activation mass of a latent that lies on one concept.

On the fit half every latent gets its concept c* and threshold τ*, on the test half its score
M = Σ_b w_b (P_b − π)/(1 − π) over activation-quantile bins b: P_b the fraction of the bin that
carries c*, π the concept's base rate, w_b the bin's fraction of activation mass. A score that label
streams shifted by whole documents reach as well is 0.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sae_repro.concepts.bank import ConceptBank
from sae_repro.evaluate.codes import Codes
from sae_repro.evaluate.metrics.monosemanticity.agreement import (
    SHIFTS,
    Floats,
    bin_kappas,
    bin_weights,
    bins_of,
    kappa,
    null_offsets,
    percentile,
    phi,
    shifted_sums,
)
from sae_repro.evaluate.metrics.monosemanticity.counts import THRESHOLDS, at_thresholds, part_of
from sae_repro.evaluate.metrics.monosemanticity.firings import NONZEROS, blocks, firings
from sae_repro.evaluate.quantiles import quantile_edges
from sae_repro.numerics.random import generator

if TYPE_CHECKING:
    import pandas as pd

Ints = npt.NDArray[np.int64]

SHORTLIST = 20  # concepts per latent whose thresholds are tried
ACTIVATION_BINS = 5
RARE_DOCUMENTS = 25
DENSE_FRACTION = 0.2
MONOSEMANTIC, COMPLETE = 0.7, 0.7  # least M, least φ
MASS = 0.8  # of which n80 counts the token ids
FEW_IDS = 4096  # of tokens, that are counted without sorting them first
LATENTS = 512  # whose counts per concept are held at once
AT_ONCE = 2**20  # nonzeros; arrays of more are slow to get, and leave every cache
KAPPAS = tuple(f"kappa_{b}" for b in range(1, ACTIVATION_BINS + 1))
"""Columns of κ_b, from the bin of the lowest activations on."""

CLASSES = ("dead", "rare", "dense", "monosemantic-complete", "monosemantic-narrow", "polysemantic",
           "not testable")  # fmt: skip
"""In this order of precedence; not testable: the bank holds no concept."""


@dataclass(frozen=True)
class _Fit:
    """Per latent, the values fitted on the fit half."""

    concept_k: Ints
    threshold_k: Floats
    edges_kb: Floats


class _TestHalf:
    """The test half's rows, renumbered without gaps, and the null's offsets among them."""

    def __init__(self, bank: ConceptBank, seed: int) -> None:
        test = ~bank.fit
        self.n = int(test.sum())
        self.number = np.cumsum(test) - 1
        starts = np.flatnonzero(np.diff(bank.document[test], prepend=-1))
        self.offsets = null_offsets(starts, generator(seed, "null"))
        self._bank, self._known = bank, dict[int, tuple[Ints, npt.NDArray[np.bool_]]]()

    def carrying(self, concept: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """The test rows that carry `concept`, and of every one whether it does."""
        if concept not in self._known:
            labels = self._bank.labels
            rows = np.sort(labels.indices[labels.indptr[concept] : labels.indptr[concept + 1]])
            positives = self.number[rows[~self._bank.fit[rows]]]
            carries_n = np.zeros(self.n, dtype=bool)
            carries_n[positives] = True
            self._known[concept] = positives, carries_n
        return self._known[concept]


def monosemanticity(
    codes: Codes,
    bank: ConceptBank,
    seed: int,
    fired_k: Ints,
    *,
    limit: int = NONZEROS,
) -> "pd.DataFrame":
    """A row per latent: latent, class, concept, M, M_raw, null, phi, threshold, n80, tokens and
    documents on which it fires, and κ_b of each bin of its activations.

    `codes` stream canonical activations, `fired_k` [K] counts the rows on which each latent fires.
    `limit` bounds memory (see `firings`) and changes no value. M, M_raw and phi are missing where
    a latent is silent on a half; null is where the test half has fewer than 201 documents, and
    there M = max(M_raw, 0).
    """
    import pandas as pd

    half = _TestHalf(bank, seed)
    rows_nc = csr_array(bank.labels).astype(np.int32)
    _, token = np.unique(bank.token, return_inverse=True)
    parts = []
    for first, block in firings(codes, bank, fired_k, limit):
        for begin, end in blocks(np.diff(block.indptr), AT_ONCE, LATENTS):
            a_kn = block[begin:end]
            part = _described(a_kn, bank, token)
            if bank.names:
                part |= _scored(a_kn, bank, half, _fitted(a_kn, bank, rows_nc))
            part["latent"] = np.arange(first + begin, first + begin + a_kn.shape[0], dtype=np.int32)
            parts.append(pd.DataFrame(part))
    frame = pd.concat(parts, ignore_index=True)
    scored = frame.reindex(columns=["concept", "M", "M_raw", "null", "phi", "threshold"])
    frame[scored.columns] = scored.astype({"concept": "str"})
    frame.insert(1, "class", _classes(frame, len(bank.fit), bool(bank.names)))
    order = ["latent", "class", "concept", "M", "M_raw", "null", "phi", "threshold", "n80",
             "fired", "documents_fit", "documents_test", *KAPPAS]  # fmt: skip
    return frame.reindex(columns=order)


def _described(a_kn: csr_array, bank: ConceptBank, token: Ints) -> dict[str, Any]:
    """Tokens and documents on which each latent fires, and n80; `token` [N] counts from 0 on."""
    row, k = a_kn.indices, a_kn.shape[0]
    document = np.cumsum(np.diff(bank.document, prepend=-1) != 0, dtype=np.int32).take(row)
    # rows stand by document: one that differs from the entry before is another firing document
    new = np.empty(len(row), dtype=bool)
    np.not_equal(document[1:], document[:-1], out=new[1:])
    new[a_kn.indptr[:-1][np.diff(a_kn.indptr) > 0]] = True
    at = np.flatnonzero(new)
    latent, fit = np.searchsorted(a_kn.indptr, at, side="right") - 1, bank.fit[row[at]]
    parts = zip(a_kn.indptr[:-1].tolist(), a_kn.indptr[1:].tolist(), strict=True)
    return {
        "fired": np.diff(a_kn.indptr).astype(np.int64),
        "documents_fit": np.bincount(latent[fit], minlength=k),
        "documents_test": np.bincount(latent[~fit], minlength=k),
        "n80": np.array([_n80(token[row[i:j]], a_kn.data[i:j]) for i, j in parts], dtype=np.int64),
    }


def _n80(token: Ints, value: npt.NDArray[Any]) -> int:
    """The fewest token ids that hold 80 % of the activations `value` [n]; 0 of none."""
    if not len(token):
        return 0
    if token.max() > FEW_IDS:  # a count of each would be mostly of others
        _, token = np.unique(token, return_inverse=True)
    running = np.cumsum(np.sort(np.bincount(token, weights=value))[::-1])
    # a shade less: sums of the same masses in another order must not ask for one id more
    return int(np.searchsorted(running, MASS * running[-1] * (1 - 1e-9))) + 1


def _fitted(a_kn: csr_array, bank: ConceptBank, rows_nc: csr_array) -> _Fit:
    """c*, τ* and the edges of the bins, from the rows of the fit half alone."""
    k, levels = a_kn.shape[0], at_thresholds(a_kn, bank.fit, rows_nc)
    n = int(bank.fit.sum())
    positives_c = bank.labels.T.astype(np.int64) @ bank.fit.astype(np.int64)
    overall = phi(levels.both_ktc[:, 0], levels.fires_kt[:, :1], positives_c, n)
    shortlist = np.argsort(-overall, axis=1, kind="stable")[:, :SHORTLIST]
    both_kts = np.take_along_axis(levels.both_ktc, shortlist[:, None, :], axis=2)
    all_kct = phi(
        both_kts.transpose(0, 2, 1),
        levels.fires_kt[:, None, :],
        positives_c[shortlist][:, :, None],
        n,
    )
    # of equals the first: the concept ahead in the shortlist, the lowest threshold
    best = all_kct.reshape(k, -1).argmax(axis=1)
    concept, threshold = np.divmod(best, THRESHOLDS)
    latents = np.arange(k)
    return _Fit(
        concept_k=shortlist[latents, concept],
        threshold_k=levels.threshold_kt[latents, threshold],
        edges_kb=quantile_edges(levels.histogram_kb, ACTIVATION_BINS),
    )


def _scored(a_kn: csr_array, bank: ConceptBank, half: _TestHalf, fit: _Fit) -> dict[str, Any]:
    """M, its null and φ on the test half; NaN, and no concept, where a latent is silent on one."""
    k = a_kn.shape[0]
    latent, at, value = part_of(a_kn, ~bank.fit)
    row = half.number.take(at)
    fires_k = np.bincount(latent, minlength=k)
    bins = bins_of(latent, value, fit.edges_kb)
    weight = bin_weights(bins, value, k, ACTIVATION_BINS)
    carries = np.zeros(len(row), dtype=bool)
    positives_k, null_k = np.zeros(k, dtype=np.int64), np.full(k, np.nan)
    testable = (fires_k > 0) & (fires_k < np.diff(a_kn.indptr))
    shifted_ks = np.zeros((k, SHIFTS))
    end_k = np.cumsum(fires_k)
    for j in np.flatnonzero(testable):
        part = slice(end_k[j] - fires_k[j], end_k[j])
        positives, carries_n = half.carrying(int(fit.concept_k[j]))
        positives_k[j], carries[part] = len(positives), carries_n[row[part]]
        if half.offsets is not None:
            shifted_ks[j] = shifted_sums(weight[part], row[part], positives, half.offsets, half.n)
    base_k = positives_k / half.n
    raw_k = kappa(np.bincount(latent, weight * carries, minlength=k), base_k)
    if half.offsets is not None:
        null_k = percentile(kappa(shifted_ks, base_k[:, None]))
    high = value >= fit.threshold_k[latent]
    high_k = np.bincount(latent[high], minlength=k)
    both_k = np.bincount(latent[high & carries], minlength=k)
    # fmax: without a null, the score need only be above chance
    above = raw_k > np.fmax(null_k, 0.0)
    measured = {
        "M": np.where(above, raw_k, 0.0),
        "M_raw": raw_k,
        "null": null_k,
        "phi": phi(both_k, high_k, positives_k, half.n),
        "threshold": fit.threshold_k,
        **dict(zip(KAPPAS, bin_kappas(bins, carries, base_k, ACTIVATION_BINS).T, strict=True)),
    }
    names = np.array([*bank.names, None], dtype=object)
    return {
        **{name: np.where(testable, column, np.nan) for name, column in measured.items()},
        "concept": names[np.where(testable, fit.concept_k, -1)],
    }


def _classes(frame: "pd.DataFrame", n: int, testable: bool) -> npt.NDArray[Any]:
    import pandas as pd

    pure = frame["M"] >= MONOSEMANTIC
    conditions = [
        frame["fired"] == 0,
        frame[["documents_fit", "documents_test"]].min(axis=1) < RARE_DOCUMENTS,
        frame["fired"] > DENSE_FRACTION * n,
        pure & (frame["phi"] >= COMPLETE),
        pure,
        pd.Series(testable, index=frame.index),
        pd.Series(True, index=frame.index),
    ]
    first = np.argmax([condition.to_numpy(bool) for condition in conditions], axis=0)
    classes: npt.NDArray[Any] = np.array(CLASSES, dtype=object)[first]
    return classes
