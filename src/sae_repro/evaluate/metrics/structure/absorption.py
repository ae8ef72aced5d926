"""Holes, where a parent's split set is silent on a child, and absorption, where another latent, the
child's, stands for the parent there.

Both are measured on the test tokens on which a dense probe of the parent is right.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.evaluate.metrics.structure.hierarchy import Family
from sae_repro.evaluate.metrics.structure.logistic import dense
from sae_repro.evaluate.metrics.structure.probes import MOST, Split
from sae_repro.evaluate.metrics.structure.sample_halves import Contrast, Half, Halves

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

OF_A_CHILD = 0.7  # precision from which on a latent is the child's
DENSE_F1, RECALL = 0.6, 0.5
FAINT, STRONG = 0.05, 0.99  # a faint activation: under this fraction of this percentile
FRACTION, COSINE = 0.4, 0.1  # of the parent's projection, with the parent's direction

SILENCES = ("zero", "faint")
TESTABLE = "testable"
STATUSES = (TESTABLE, "no childless token", "no split set", "dense probe", "no token right",
            "low recall")  # fmt: skip
"""TESTABLE, then the reasons why a pair is not testable; the first that holds is recorded."""


@dataclass(frozen=True)
class DenseProbe:
    """A probe of a concept on the activations themselves."""

    direction_d: Floats
    """ŵ_p, of length 1."""
    along_n: Floats
    """⟨x − x̄, ŵ_p⟩ on the test half."""
    right_n: Mask
    """The test tokens that carry the concept and that the probe calls positive."""
    f1: float
    """On test."""


@dataclass(frozen=True)
class Pair:
    """One parent, one of its large children, one notion of silence: a row of the table."""

    parent: int
    child: int
    silence: str
    """zero: a = 0; faint: a < 5 % of the 99th percentile of the latent's positive a on fit."""
    status: str
    dense_f1: float
    split_latents: int
    """Latents of the parent's split set that are no large child's."""
    absorbers: int
    """Latents outside it that are the child's and point the parent's way."""
    childless_tokens: int
    childless_recalled: int
    child_tokens: int
    child_silent: int
    child_absorbed: int
    child_behind: int
    """Child tokens with ⟨x − x̄, ŵ_p⟩ ≤ 0: none of these counts as absorbed."""

    @property
    def childless_recall(self) -> float:
        """P(S_p speaks | p, no large child); NaN without such a token."""
        return self.childless_recalled / self.childless_tokens if self.childless_tokens else np.nan

    @property
    def hole_rate(self) -> float:
        """P(S_p silent | c) − P(S_p silent | p, no large child); NaN if not testable."""
        if self.status != TESTABLE:
            return np.nan
        return self.child_silent / self.child_tokens - (1 - self.childless_recall)

    @property
    def absorption(self) -> float:
        """Fraction of the child's tokens that are silent and absorbed; NaN if not testable."""
        return self.child_absorbed / self.child_tokens if self.status == TESTABLE else np.nan

    def row(self, names: tuple[str, ...], kinds: tuple[str, ...]) -> dict[str, object]:
        """The entries of the table, concepts by name."""
        numbers = {k: v for k, v in asdict(self).items() if k not in ("parent", "child")}
        return {
            "parent": names[self.parent],
            "child": names[self.child],
            "kind": kinds[self.parent],
            **numbers,
            "childless_recall": self.childless_recall,
            "hole_rate": self.hole_rate,
            "absorption": self.absorption,
        }


PAIR_COLUMNS = (
    "parent", "child", "kind",
    *(entry.name for entry in fields(Pair) if entry.name not in ("parent", "child")),
    "childless_recall", "hole_rate", "absorption",
)  # fmt: skip


def dense_probe(halves: Halves, concept: int) -> DenseProbe:
    """Fit on the fit half, apply to the test half: positive is a probability above ½."""
    fit, test = halves.fit, halves.test
    positive, truth = fit.carries_cn[concept], test.carries_cn[concept]
    beta, intercept = dense(fit.centred_nd, positive)
    length = float(np.linalg.norm(beta))
    direction = beta / length if length else beta
    along = test.centred_nd @ direction
    called: Mask = along * length + intercept > 0
    right: Mask = called & truth
    f1 = 2 * right.sum() / max(1, called.sum() + truth.sum())
    return DenseProbe(direction, along, right, float(f1))


def own_candidates(contrast: Contrast, family: Family) -> Ints:
    """The latents that may stand for the parent: those that are precise for no large child.

    From the largest |mean difference| on, as many as a split set can have.
    """
    largest_k = contrast.precision_ck[family.children].max(axis=0)
    order: Ints = np.argsort(-np.abs(contrast.difference_ck[family.parent]), kind="stable")
    candidates: Ints = order[(largest_k[order] < OF_A_CHILD) & (contrast.fires_k[order] > 0)]
    return candidates[:MOST]


def unit_rows(d_kd: npt.NDArray[Any]) -> Floats:
    """Rows of length 1, fp64; a row of zeros stays one."""
    d = d_kd.astype(np.float64)
    norm = np.linalg.norm(d, axis=1, keepdims=True)
    unit: Floats = d / np.where(norm > 0, norm, 1)
    return unit


def family_pairs(
    halves: Halves, unit_kd: Floats, family: Family, split: Split, probe: DenseProbe
) -> list[Pair]:
    """A pair for each large child and each of `SILENCES`; `unit_kd` are the decoder's directions.

    Silence is measured on those latents of the split set that speak for the parent: one that fires
    less on its tokens than elsewhere says nothing by firing there.
    """
    test, contrast = halves.test, halves.contrast
    for_it = split.latents[contrast.difference_ck[family.parent, split.latents] > 0]
    speaks = {silence: _speaks(halves, for_it, silence) for silence in SILENCES}
    large = test.carries_cn[family.children].any(axis=0)
    outside = test.carries_cn[family.parent] & ~large
    childless = outside & probe.right_n
    cosine_k = unit_kd @ probe.direction_d
    aligned = cosine_k >= COSINE
    aligned[split.latents] = False
    pairs = []
    for child in family.children.tolist():
        tokens = test.carries_cn[child] & probe.right_n
        absorbers = np.flatnonzero(aligned & (contrast.precision_ck[child] >= OF_A_CHILD))
        stood_in_for = _stood_in_for(test, absorbers, cosine_k, probe.along_n)
        for silence in SILENCES:
            silent, recalled = tokens & ~speaks[silence], childless & speaks[silence]
            reasons = {
                "no childless token": not outside.any(),
                "no split set": not len(for_it),
                "dense probe": probe.f1 <= DENSE_F1,
                "no token right": not (childless.any() and tokens.any()),
                "low recall": recalled.sum() < RECALL * childless.sum(),
            }
            pairs.append(
                Pair(
                    parent=family.parent,
                    child=child,
                    silence=silence,
                    status=next((name for name, holds in reasons.items() if holds), TESTABLE),
                    dense_f1=probe.f1,
                    split_latents=len(split.latents),
                    absorbers=len(absorbers),
                    childless_tokens=int(childless.sum()),
                    childless_recalled=int(recalled.sum()),
                    child_tokens=int(tokens.sum()),
                    child_silent=int(silent.sum()),
                    child_absorbed=int((silent & stood_in_for).sum()),
                    child_behind=int((tokens & (probe.along_n <= 0)).sum()),
                )
            )
    return pairs


def _speaks(halves: Halves, latents: Ints, silence: str) -> Mask:
    """Whether any of `latents` is not silent, per test token."""
    speaks = np.zeros(halves.test.carries_cn.shape[1], dtype=bool)
    for latent in latents.tolist():
        rows, values = halves.test.column(latent)
        if silence == "faint":
            # latents of a split set fire on fit
            strong = np.quantile(halves.fit.column(latent)[1].astype(np.float64), STRONG)
            rows = rows[values >= FAINT * strong]
        speaks[rows] = True
    return speaks


def _stood_in_for(test: Half, latents: Ints, cosine_k: Floats, along_n: Floats) -> Mask:
    """Whether any of `latents` alone writes ≥ .4 of what lies along the parent, per test token."""
    absorbed = np.zeros(len(along_n), dtype=bool)
    for latent in latents.tolist():
        rows, values = test.column(latent)
        absorbed[rows[values * cosine_k[latent] >= FRACTION * along_n[rows]]] = True
    return absorbed & (along_n > 0)
