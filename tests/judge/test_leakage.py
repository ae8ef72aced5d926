"""Explaining and scoring contexts share no document."""

from collections.abc import Callable

import numpy as np
import pytest

from sae_repro.concepts.halves import in_fit
from sae_repro.errors import StudyError
from sae_repro.judge.latent_windows import EXPLAIN, SCORE
from sae_repro.judge.leakage import check_disjoint
from sae_repro.numerics.hashing import least_hash

DOCUMENTS = np.arange(400) // 4  # four contexts in each of a hundred documents
Sampler = Callable[[np.ndarray, int], tuple[list[int], list[int]]]


def by_halves(documents: np.ndarray, seed: int) -> tuple[list[int], list[int]]:
    """As the judge draws."""
    fit = in_fit(seed, documents)
    return (
        least_hash(np.flatnonzero(fit), 20, seed, EXPLAIN).tolist(),
        least_hash(np.flatnonzero(~fit), 20, seed, SCORE).tolist(),
    )


def same_list_same_seed(documents: np.ndarray, seed: int) -> tuple[list[int], list[int]]:
    """The known leak: both are drawn from one list by generators of one seed."""
    rows = range(len(documents))
    first, second = (np.random.default_rng(seed).choice(rows, 20, replace=False) for _ in "ab")
    return first.tolist(), second.tolist()


def split_by_row(documents: np.ndarray, seed: int) -> tuple[list[int], list[int]]:
    """The leak next to it: no context twice, but neighbours from one document on both sides."""
    rows = np.random.default_rng(seed).permutation(len(documents)).tolist()
    return rows[:20], rows[20:40]


def leaks(sampler: Sampler, seed: int) -> bool:
    explain, score = sampler(DOCUMENTS, seed)
    assert len(explain) == len(score) == 20
    try:
        check_disjoint(DOCUMENTS[explain].tolist(), DOCUMENTS[score].tolist())
    except StudyError:
        return True
    return False


def test_known_leaks_are_detected_and_a_draw_by_halves_has_none() -> None:
    seeds = range(20)
    assert all(leaks(same_list_same_seed, seed) for seed in seeds)
    assert any(leaks(split_by_row, seed) for seed in seeds)
    assert not any(leaks(by_halves, seed) for seed in seeds)


def test_the_message_has_the_number_and_the_remedy() -> None:
    with pytest.raises(StudyError, match=r"2 documents both explain and score, e\.g\. 1; draw"):
        check_disjoint([1, 2, 3], [2, 1, 5])


def test_draws_of_two_purposes_differ() -> None:
    items = np.arange(100)
    first, second = (set(least_hash(items, 30, 0, salt).tolist()) for salt in (EXPLAIN, SCORE))
    assert 2 <= len(first & second) <= 18  # 9 by chance
