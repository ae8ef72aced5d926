"""Scores over latents, and agreement with M: against the plain definition and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from sae_repro.judge.agreement_with_m import agreement_with_m, auc, weighted_auc
from sae_repro.judge.scores.detection import detection, pooled_detection
from sae_repro.judge.scores.simulation import pooled_simulation, simulation
from sae_repro.judge.scores.specificity import pooled_specificity, specificity

LISTS = st.lists(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=6),
    min_size=1, max_size=5,
)  # fmt: skip


@given(LISTS)
def test_over_latents_is_over_all_contexts_at_once(latents: list[list[tuple[int, int]]]) -> None:
    truth, answers = ([[pair[i] for pair in row] for row in latents] for i in (0, 1))
    result = pooled_detection([detection([t], [s]) for t, s in zip(truth, answers, strict=True)], 0)
    whole = detection(truth, answers)
    for name in ("balanced_accuracy", "f1", "positives", "negatives"):
        mine, theirs = result[name], getattr(whole, name)
        assert mine == theirs if theirs is None else mine == pytest.approx(theirs)
    if result["balanced_accuracy"] is not None:
        low, high = result["interval"]
        assert 0 <= low <= high <= 1


def test_the_interval_is_over_latents() -> None:
    """Two latents answered perfectly, two all wrong: contexts alone would be far too sure."""
    right, wrong = ([1] * 50 + [0] * 50), ([0] * 50 + [1] * 50)
    result = pooled_detection([detection([right], [s]) for s in (right, right, wrong, wrong)], 0)
    assert result["balanced_accuracy"] == 0.5
    assert result["interval"][0] <= 0.1
    assert result["interval"][1] >= 0.9


def test_without_scored_latents_there_is_no_value() -> None:
    assert pooled_detection([], 0)["balanced_accuracy"] is None
    assert pooled_detection([], 0)["interval"] is None
    assert pooled_simulation([], 0)["correlation"] is None
    assert pooled_specificity([], 3)["mean"] == [None] * 3


def test_simulation_and_specificity_over_latents() -> None:
    good = simulation([[0.0, 1.0, 2.0]], [[0, 5, 10]], [0], [1])
    flat = simulation([[0.0, 1.0]], [[3, 3]], [0], [1])
    lost = simulation([[0.0, 1.0]], [None], [0], [1])
    result = pooled_simulation([good, flat, lost], 0)
    assert result["correlation"] == pytest.approx(0.5), "a constant counts as 0"
    counts = ("latents", "without_correlation", "constant", "unparsable")
    assert [result[name] for name in counts] == [2, 1, 1, 1]
    parts = [specificity([0, 1, 1], [0, 3, None], 2), specificity([1], [1], 2)]
    assert pooled_specificity(parts, 2)["mean"] == [0.0, 2.0]
    assert pooled_specificity(parts, 2)["unparsable"] == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_is_that_of_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    score = np.array([pair[0] for pair in pairs], dtype=np.float64)
    positive = np.array([pair[1] for pair in pairs])
    if positive.all() or not positive.any():
        assert auc(score, positive) is None
    else:
        assert auc(score, positive) == pytest.approx(roc_auc_score(positive, score))


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2), st.integers(0, 99))
def test_a_weight_is_a_latent_drawn_that_often(pairs: list[tuple[int, bool]], seed: int) -> None:
    score = np.array([pair[0] for pair in pairs], dtype=np.float64)
    positive = np.array([pair[1] for pair in pairs])
    weight = np.random.default_rng(seed).integers(0, 4, size=(3, len(pairs)))
    for row, value in zip(weight, weighted_auc(score, positive, weight.astype(float)), strict=True):
        repeated = auc(np.repeat(score, row), np.repeat(positive, row))
        assert math.isnan(value) if repeated is None else value == pytest.approx(repeated)


def test_agreement_counts_excluded_latents() -> None:
    m = np.array([0.9, 0.8, 0.1, math.nan, 0.5, 0.2])
    labels = {0: "a", 1: "b", 2: "POLYSEMANTIC", 3: "c", 4: None, 5: "POLYSEMANTIC"}
    result = agreement_with_m(labels, m, 0)
    assert result["auc"] == 1.0
    assert result["interval"] == [1.0, 1.0]
    counts = ("latents", "labelled", "without_answer", "without_m")
    assert [result[name] for name in counts] == [4, 2, 1, 1]
    alone = agreement_with_m({0: "a"}, m, 0)
    assert alone["auc"] is alone["interval"] is None
