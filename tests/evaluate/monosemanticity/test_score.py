"""Monosemanticity where the answer is known: planted latents, noise, chance."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_array

from sae_repro.concepts.bank import ConceptBank
from sae_repro.concepts.halves import in_fit
from sae_repro.errors import StudyError
from sae_repro.evaluate.codes import Code, Codes, code_of
from sae_repro.evaluate.metrics.monosemanticity import score as monosemantic
from sae_repro.evaluate.metrics.monosemanticity.agreement import phi
from sae_repro.evaluate.metrics.monosemanticity.firings import blocks, firings
from sae_repro.evaluate.metrics.monosemanticity.fractions import summary
from sae_repro.evaluate.metrics.monosemanticity.score import KAPPAS, monosemanticity
from sae_repro.evaluate.quantiles import BINS, bin_of, quantile_edges

LENGTH = 20  # tokens of a document
SEED = 3


def bank_with(labels_nc: np.ndarray, token: np.ndarray | None = None) -> ConceptBank:
    n, c = labels_nc.shape
    document = np.arange(n) // LENGTH
    return ConceptBank(
        names=tuple(f"c{i}" for i in range(c)),
        kinds=("class",) * c,
        labels=csc_array(labels_nc),
        document=document,
        position=np.arange(n) % LENGTH,
        token=np.zeros(n, dtype=np.int64) if token is None else token,
        fit=in_fit(SEED, document),
        left_out={},
    )


def stream(a_nk: np.ndarray, size: int = 777, order: np.ndarray | None = None) -> Codes:
    rows = np.arange(len(a_nk)) if order is None else order
    index = np.stack([rows // LENGTH, rows % LENGTH, rows * 0], axis=1).astype(np.int32)

    def codes() -> Iterator[Code]:
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            yield code_of(torch.from_numpy(a_nk[rows[part]].astype(np.float32)), index[part])

    return codes


def scored(a_nk: np.ndarray, bank: ConceptBank) -> pd.DataFrame:
    return monosemanticity(stream(a_nk), bank, SEED, (a_nk > 0).sum(0))


def random_labels(n: int, c: int, p: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n, c)) < p


def amplitudes(on_nk: np.ndarray, seed: int = 9) -> np.ndarray:
    return on_nk * np.random.default_rng(seed).uniform(0.5, 2.0, on_nk.shape)


def test_labels_as_latents_are_complete() -> None:
    labels = random_labels(12_000, 30, 0.05, 0)
    frame = scored(amplitudes(labels), bank_with(labels))
    assert frame["concept"].tolist() == [f"c{i}" for i in range(30)]
    assert (frame["class"] == "monosemantic-complete").all()
    assert frame["M"].to_numpy() == pytest.approx(1)
    assert frame["phi"].to_numpy() == pytest.approx(1)
    assert (frame["threshold"] == 0).all()
    assert frame["null"].between(-0.05, 0.05).all()


@pytest.mark.parametrize("q", [0.05, 0.1, 0.2, 0.3])
def test_flipped_labels_lower_m_as_predicted(q: float) -> None:
    """A latent on the truth, of base rate p; the bank's labels are flipped with probability q.

    A firing row carries the label with P = 1 − q, any row with π = p(1 − q) + (1 − p)q.
    """
    n, c, p = 40_000, 20, 0.1
    truth = random_labels(n, c, p, 0)
    flipped = truth ^ random_labels(n, c, q, 1)
    frame = scored(amplitudes(truth), bank_with(flipped))
    base = p * (1 - q) + (1 - p) * q
    expected = (1 - q - base) / (1 - base)
    error = np.sqrt(q * (1 - q) / (p * n / 2)) / (1 - base)
    assert frame["M"].mean() == pytest.approx(expected, abs=3 * error / np.sqrt(c) + 0.002)
    # the weights of the mass and the bins cost a little of the sample
    assert np.abs(frame["M"] - expected).max() < 5 * error


def test_shifted_labels_are_above_the_null_once_in_a_hundred() -> None:
    """c* and τ* are right on fit; on test the labels come from other documents.

    An exchangeable shift lies above the 199th of 200 with probability 2/201 < 1 %.
    """
    n, c, shifts = 10_000, 50, 20
    rng = np.random.default_rng(5)
    # concepts that come and go with documents, and tokens: chance agreement is not tiny
    of_document = rng.random((n // LENGTH, c)) < 0.2
    labels = np.repeat(of_document, LENGTH, axis=0) & (rng.random((n, c)) < 0.5)
    fit = bank_with(labels).fit
    test = np.flatnonzero(~fit)
    above = []
    for _ in range(shifts):
        moved = labels.copy()
        by = LENGTH * int(rng.integers(1, len(test) // LENGTH))
        moved[test] = np.roll(labels[test], by, axis=0)
        frame = scored(amplitudes(labels), bank_with(moved))
        assert frame["null"].notna().all()
        above += (frame["M_raw"] > frame["null"]).tolist()
        assert ((frame["M"] > 0) <= (frame["M_raw"] > frame["null"])).all()
    assert np.mean(above) <= 0.01


def test_random_latents_score_nothing_on_a_random_bank() -> None:
    """Best of 200 concepts by φ on fit, and yet nothing on test."""
    n = 20_000
    frame = scored(
        amplitudes(random_labels(n, 60, 0.01, 1)), bank_with(random_labels(n, 200, 0.1, 0))
    )
    assert frame["M_raw"].abs().max() < 0.2
    assert not frame["class"].str.startswith("mono").any()
    assert abs(frame["phi"]).max() < 0.06


def planted() -> tuple[np.ndarray, np.ndarray, list[str]]:
    n = 20_000
    rng = np.random.default_rng(2)
    labels = rng.random((n, 6)) < 0.2
    rows = np.arange(n)
    narrow = labels[:, 1] & (np.cumsum(labels[:, 1]) % 2 == 0)
    mixed = labels[:, 2] | labels[:, 3] | labels[:, 4]
    rare = (labels[:, 5] & (rows < 40 * LENGTH)).astype(float)
    dense = rng.random(n) < 0.3
    a = np.stack([np.zeros(n), rare, dense, labels[:, 0] & (rng.random(n) < 0.95), narrow,
                  mixed & (rng.random(n) < 0.2)], axis=1).astype(float)  # fmt: skip
    classes = ["dead", "rare", "dense", "monosemantic-complete", "monosemantic-narrow",
               "polysemantic"]  # fmt: skip
    return labels, a, classes


def test_planted_latents_get_their_class() -> None:
    labels, a, classes = planted()
    frame = scored(a, bank_with(labels))
    assert frame["class"].tolist() == classes
    assert frame.loc[0, ["M", "M_raw", "null", "phi", "threshold"]].isna().all()
    assert frame["concept"].isna().tolist() == [True, False, False, False, False, False]
    # half of a concept's tokens: precision 1, recall r = ½, φ = √(r(1 − p)/(1 − rp)), p = .2
    assert frame.loc[4, "phi"] == pytest.approx(np.sqrt(0.5 * 0.8 / 0.9), abs=0.01)
    assert frame.loc[4, "M"] == pytest.approx(1)
    assert frame.loc[1, "M"] == pytest.approx(1)  # rare goes before what M says
    fit = bank_with(labels).fit
    document = np.arange(len(a)) // LENGTH
    for k in range(a.shape[1]):
        for name, half in (("fit", fit), ("test", ~fit)):
            firing = len(np.unique(document[half & (a[:, k] > 0)]))
            assert frame.loc[k, f"documents_{name}"] == firing
    assert frame["fired"].tolist() == (a > 0).sum(0).tolist()


def test_strong_activations_count_by_their_mass() -> None:
    """Right where strong, wrong where weak: the threshold finds it and M weighs it."""
    n = 20_000
    rng = np.random.default_rng(0)
    labels = rng.random((n, 3)) < 0.05
    noise = ~labels[:, 0] & (rng.random(n) < 0.05)
    a = (labels[:, 0] * 8.0 + noise * 1.0)[:, None]
    row = scored(a, bank_with(labels)).iloc[0]
    assert row["concept"] == "c0"
    assert 1 < row["threshold"] <= 8
    assert row["phi"] == pytest.approx(1)
    share = 8 / 9 * 1.0  # of the mass lies where the concept is, the rest where it never is
    assert row["M"] == pytest.approx((share - 0.05) / 0.95, abs=0.02)


@given(st.integers(40, 3000), st.integers(0, 100), st.integers(1, 9), st.integers(1, 9_000))
@settings(max_examples=15, deadline=None)
def test_nothing_depends_on_batches_order_or_blocks(
    size: int, seed: int, latents: int, limit: int
) -> None:
    n = 3_000
    labels = random_labels(n, 12, 0.1, 0)
    a = amplitudes(random_labels(n, 9, 0.1, 3) | labels[:, :9])
    a[:, 8] = 0
    bank = bank_with(labels, token=np.arange(n) % 50)
    whole = monosemanticity(stream(a, n), bank, SEED, (a > 0).sum(0))
    order = np.random.default_rng(seed).permutation(n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monosemantic, "LATENTS", latents)
        patch.setattr(monosemantic, "AT_ONCE", 3 * limit)
        cut = monosemanticity(stream(a, size, order), bank, SEED, (a > 0).sum(0), limit=limit)
    pd.testing.assert_frame_equal(whole, cut, check_exact=True)


def test_blocks_hold_all_nonzeros_in_the_banks_order() -> None:
    a = amplitudes(random_labels(400, 7, 0.3, 0)).astype(np.float32)
    batches = stream(a, 33, np.random.default_rng(0).permutation(400))
    parts = list(firings(batches, bank_with(a > 1), (a > 0).sum(0), limit=260))
    assert [first for first, _ in parts] == [0, 2, 4, 6]
    assert np.array_equal(np.concatenate([b.toarray() for _, b in parts]), a.T)


def test_blocks_are_bounded_by_nonzeros_and_by_latents() -> None:
    fired_k = np.array([0, 0, 0, 5, 1, 9, 0, 1])
    assert list(blocks(fired_k, 6)) == [(0, 5), (5, 6), (6, 8)]
    assert list(blocks(fired_k, 6, 2)) == [(0, 2), (2, 4), (4, 5), (5, 6), (6, 8)]
    assert list(blocks(fired_k[:3], 6, 1)) == [(0, 1), (1, 2), (2, 3)]


def brute(
    a: np.ndarray, labels: np.ndarray, bank: ConceptBank
) -> tuple[int, float, float, float, dict[str, float]]:
    """(c*, τ*, M_raw, test φ, κ_b by column) of one latent, as the definition reads."""
    fit, test = bank.fit, ~bank.fit
    positive = a[fit][a[fit] > 0]
    histogram = np.bincount(bin_of(positive), minlength=BINS)[None]

    def agreement(c: int, tau: float, half: np.ndarray) -> float:
        fires = (a[half] > 0) & (a[half] >= tau)
        both = (fires & labels[half, c]).sum()
        return float(phi(both, fires.sum(), labels[half, c].sum(), int(half.sum())))

    shortlist = sorted(range(labels.shape[1]), key=lambda c: -agreement(c, 0.0, fit))[:20]
    taus = [0.0, *quantile_edges(histogram, 8)[0]]
    best = max(((c, t) for c in shortlist for t in taus), key=lambda pair: agreement(*pair, fit))
    c, tau = best
    base = labels[test, c].mean()
    edges = quantile_edges(histogram, 5)[0]
    fires = test & (a > 0)
    bins = (a[fires][:, None] >= edges).sum(1)
    m, kappas = 0.0, {}
    for b in np.unique(bins):
        share = labels[fires, c][bins == b].mean()
        kappas[f"kappa_{b + 1}"] = (share - base) / (1 - base)
        m += a[fires][bins == b].sum() / a[fires].sum() * kappas[f"kappa_{b + 1}"]
    return c, tau, m, agreement(c, tau, test), kappas


def test_scores_equal_the_definition() -> None:
    n = 6_000
    rng = np.random.default_rng(4)
    labels = random_labels(n, 30, 0.1, 6)
    strength = rng.exponential(size=(n, 8)) * (1 + 2 * labels[:, :8])
    a = strength * (random_labels(n, 8, 0.1, 7) | (labels[:, :8] & random_labels(n, 8, 0.5, 8)))
    a = a.astype(np.float32).astype(np.float64)
    bank = bank_with(labels)
    frame = scored(a, bank)
    for k in range(8):
        concept, tau, m, agreement, kappas = brute(a[:, k], labels, bank)
        row = frame.iloc[k]
        assert row["concept"] == f"c{concept}"
        assert row["threshold"] == tau
        assert row["M_raw"] == pytest.approx(m, abs=1e-9)
        assert row["phi"] == pytest.approx(agreement, abs=1e-9)
        assert row[list(KAPPAS)].dropna().to_dict() == pytest.approx(kappas, abs=1e-9)


@pytest.mark.parametrize("few", [monosemantic.FEW_IDS, 0])
def test_n80_counts_the_ids_that_hold_the_mass(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monosemantic, "FEW_IDS", few)
    n = 4_000
    token = np.arange(n) % 10
    a = np.zeros((n, 3))
    a[token == 4, 0] = 1.0
    a[:, 1] = 1.0  # ten ids of equal mass: eight hold 80 %
    a[:, 2] = np.where(token == 1, 7.0, np.where(token < 4, 1.0, 0.0))  # 7 of 10, then 1, 1, 1
    frame = scored(a, bank_with(random_labels(n, 2, 0.1, 0), token))
    assert frame["n80"].tolist() == [1, 8, 2]


def test_too_few_documents_leave_no_null() -> None:
    labels = random_labels(200 * LENGTH, 4, 0.2, 0)
    bank = bank_with(labels)
    frame = scored(amplitudes(labels), bank)
    assert frame["null"].isna().all()
    assert frame["M"].to_numpy() == pytest.approx(1)
    assert summary(frame, bank, 0).counts["latents_without_null"] == 4


def test_empty_bank_gives_no_monosemantic_latent() -> None:
    labels = random_labels(4000, 3, 0.1, 0)
    bank = bank_with(labels[:, :0])
    frame = scored(amplitudes(labels), bank)
    assert (frame["class"] == "not testable").all()
    totals = summary(frame, bank, 0)
    assert set(totals.metrics.values()) == {None}
    assert totals.intervals == {}
    assert totals.counts["latents_not_testable"] == 3


def test_the_summary_counts_what_the_table_shows() -> None:
    labels, a, _ = planted()
    bank = bank_with(labels)
    frame = scored(a, bank)
    totals = summary(frame, bank, 0)
    assert totals.metrics["monosemantic_fraction"] == pytest.approx(2 / 6)
    assert totals.metrics["monosemantic_fraction_alive"] == pytest.approx(2 / 5)
    # one of six is dead, one rare, one dense
    assert totals.metrics["monosemantic_fraction_scored"] == pytest.approx(2 / 3)
    assert totals.counts["latents_scored"] == 3
    assert totals.metrics["monosemantic_mean"] == pytest.approx(frame["M"].iloc[1:].mean())
    for name, value in totals.metrics.items():
        low, high = totals.intervals[name]
        assert value is not None
        assert low < value < high
    counts: dict[str, Any] = totals.counts
    assert counts["latents_dead"] == counts["latents_rare"] == counts["latents_dense"] == 1
    assert counts["tokens_fit"] + counts["tokens_test"] == len(a)
    assert counts["documents_fit"] + counts["documents_test"] == len(a) // LENGTH
    assert summary(frame, bank, 0) == totals


def test_activations_of_other_tokens_are_refused() -> None:
    labels = random_labels(400, 2, 0.2, 0)
    bank = bank_with(labels[:200])
    with pytest.raises(StudyError, match="not in the concept bank"):
        scored(amplitudes(labels), bank)
