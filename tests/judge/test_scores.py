"""Scores against their definitions, and against scikit-learn and numpy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from sae_repro.judge.cell_results import rate
from sae_repro.judge.latent_selection import select_latents, selectivity
from sae_repro.judge.scores.detection import Detection, detection
from sae_repro.judge.scores.simulation import simulation
from sae_repro.judge.scores.specificity import specificity
from sae_repro.numerics.intervals import wilson

FLAG = st.integers(0, 1)
PAIRS = st.lists(st.lists(st.tuples(FLAG, FLAG), min_size=1, max_size=5), min_size=1, max_size=8)


@given(PAIRS)
def test_detection_is_that_of_scikit_learn_over_everything_at_once(
    pairs: list[list[tuple[int, int]]],
) -> None:
    truth, answers = ([[pair[i] for pair in row] for row in pairs] for i in (0, 1))
    result = detection(truth, answers)
    flat_truth, flat_answers = ([flag for row in rows for flag in row] for rows in (truth, answers))
    if len(set(flat_truth)) == 2:
        expected = balanced_accuracy_score(flat_truth, flat_answers)
        assert result.balanced_accuracy == pytest.approx(expected)
    else:
        assert result.balanced_accuracy is None
    if 1 in flat_truth or 1 in flat_answers:
        assert result.f1 == pytest.approx(f1_score(flat_truth, flat_answers, zero_division=0))
    else:
        assert result.f1 is None
    one = detection([flat_truth], [flat_answers])
    assert one == result, "how the contexts are put into questions changes nothing"


def test_unparsable_answers_are_left_out_and_counted() -> None:
    result = detection([[1, 0], [1, 1], [0]], [[1, 0], None, [1]])
    assert result == Detection(
        0.75, 2 / 3, positives=1, negatives=2, true_positives=1, true_negatives=1, unparsable=1
    )
    assert detection([[1]], [None]) == Detection(None, None, 0, 0, 0, 0, 1)


def test_lengths_and_values_that_dont_fit_raise() -> None:
    for truth, answers in (([[1, 0]], [[1]]), ([[1]], []), ([[2]], [[1]])):
        with pytest.raises(ValueError):
            detection(truth, answers)
    with pytest.raises(ValueError, match="quantiles"):
        simulation([[1.0]], [[1]], [], [1])
    for quantile in (1, -1):  # −1 is the top contexts': they are no sample
        with pytest.raises(ValueError):
            simulation([[1.0]], [[1]], [quantile], [1])
    with pytest.raises(ValueError, match="finite"):
        simulation([[math.nan]], [[1]], [0], [1])
    with pytest.raises(ValueError, match="bin"):
        specificity([-1], [1], 2)


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_simulation_is_the_correlation_of_the_population(seed: int, n: int) -> None:
    """Each sampled context stands for as many as it was drawn from: repeat it that often."""
    rng = np.random.default_rng(seed)
    quantiles = rng.integers(0, 3, n).tolist()
    per_context = rng.integers(1, 5, 3)
    population = [int(per_context[q]) * quantiles.count(q) for q in range(3)]
    true = [rng.random(5).tolist() for _ in range(n)]
    answers = [rng.integers(0, 11, 5).tolist() for _ in range(n)]
    times = [per_context[q] for q in quantiles]
    everywhere = [np.concatenate([np.tile(row, k) for row, k in zip(rows, times, strict=True)])
                  for rows in (true, answers)]  # fmt: skip
    result = simulation(true, answers, quantiles, population)
    if np.ptp(everywhere[1]):
        assert result.correlation == pytest.approx(np.corrcoef(*everywhere)[0, 1])
    assert result.tokens == 5 * n
    order = rng.permutation(n)
    shuffled = simulation(
        *([rows[i] for i in order] for rows in (true, answers, quantiles)), population
    )
    assert shuffled.correlation == pytest.approx(result.correlation, abs=1e-12)


def test_simulation_concatenates_and_is_no_mean_of_correlations() -> None:
    """Within each context perfect, but on different scales: a mean of correlations would say 1."""
    result = simulation([[0, 1], [10, 11]], [[9, 10], [0, 1]], [0, 0], [2])
    assert result.correlation is not None
    assert result.correlation < -0.9


def test_unparsable_answers_do_not_weaken_their_quantile() -> None:
    """An unparsable answer must not make its quantile count for less."""
    true, answers = [[0, 1], [0, 5], [0, 5]], [[0, 9], [0, 1], [0, 1]]
    both = simulation(true, answers, [0, 1, 1], [10, 10])
    one = simulation(true, [answers[0], answers[1], None], [0, 1, 1], [10, 10])
    assert one.correlation == pytest.approx(both.correlation)
    assert (one.unparsable, one.tokens, one.lost_quantiles) == (1, 4, 0)
    lost = simulation(true, [answers[0], None, None], [0, 1, 1], [10, 10])
    assert (lost.correlation, lost.lost_quantiles) == (pytest.approx(1.0), 1)


def test_constant_predictions_score_0_and_constant_activations_nothing() -> None:
    constant = simulation([[0, 3]], [[4, 4]], [0], [1])
    assert (constant.correlation, constant.constant) == (0.0, True)
    silent = simulation([[0.1, 0.1, 0.1]], [[4, 4, 5]], [0], [1])
    assert (silent.correlation, silent.constant) == (None, False)
    nothing = simulation([[0, 3]], [None], [0], [1])
    assert (nothing.correlation, nothing.tokens, nothing.unparsable) == (None, 0, 1)
    for scale in (1e-200, 1e200):
        result = simulation([[0, scale, 2 * scale]], [[0, 1, 2]], [0], [1])
        assert result.correlation == pytest.approx(1.0)


def test_specificity_is_a_mean_per_bin() -> None:
    result = specificity([0, 0, 2, 2, 2], [3, 0, None, 2, None], 3)
    assert result.mean == [1.5, None, 2.0]
    assert result.answered == [2, 0, 1]
    assert result.unparsable == [0, 0, 2]


def test_selectivity_as_published() -> None:
    result = selectivity(np.array([20.0, 9.0, 0.0, 100.0]), np.array([10, 9, 0, 100]))
    assert result[0] == pytest.approx(2.0 / math.log(11))
    assert np.isnan(result[1])
    assert np.isnan(result[2])
    assert result[3] == pytest.approx(1.0 / math.log(101))


def test_the_extremes_are_disjoint_and_the_sample_covers_the_alive() -> None:
    s = np.array([np.nan, 5, 1, 3, 3, 2, np.nan, 4.0])
    alive = np.array([False, True, True, True, True, True, True, True])
    result = select_latents(s, alive, 0, extremes=2, uniform=50)
    assert result.top == [1, 7]
    assert result.bottom == [2, 5]
    assert result.uniform == [1, 2, 3, 4, 5, 6, 7]
    assert result.too_few == 1
    few = select_latents(s, alive, 0, extremes=25)
    assert (few.top, few.bottom) == ([1, 7, 3], [2, 5, 4])
    none = select_latents(np.full(3, np.nan), np.zeros(3, dtype=bool), 0)
    assert (none.top, none.bottom, none.uniform, none.too_few) == ([], [], [], 0)


def test_the_sample_is_fair_seeded_and_stable() -> None:
    s = np.arange(200.0)
    alive = np.ones(200, dtype=bool)
    drawn = np.zeros(200)
    for seed in range(300):
        drawn[select_latents(s, alive, seed).uniform] += 1
    # binomial(300, 1/4): 75 ± 7.5
    assert drawn.min() > 45
    assert drawn.max() < 110
    whole = set(select_latents(s, alive, 1).uniform)
    alive[sorted(whole)[0]] = False
    assert len(whole & set(select_latents(s, alive, 1).uniform)) == 49


def test_the_rate_is_over_answered_latents() -> None:
    result = rate(["verbs"] * 40 + ["POLYSEMANTIC"] * 10 + [None] * 3)
    assert (result.rate, result.labelled, result.answered, result.unparsable) == (0.8, 40, 50, 3)
    assert result.interval == wilson(40, 50)
    assert rate([None]).rate is None
    assert rate([]).interval == (0.0, 1.0)
