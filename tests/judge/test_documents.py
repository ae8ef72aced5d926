"""What is explained is not scored."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_repro.errors import StudyError
from sae_repro.judge.documents import check_disjoint, draw, fraction, side_of, split

DOCUMENTS = [i // 4 for i in range(400)]  # four contexts in each of a hundred documents
Sampler = Callable[[list[int], int], tuple[list[int], list[int]]]


def ours(documents: list[int], seed: int) -> tuple[list[int], list[int]]:
    explain, score = split(documents, seed)
    return (
        draw(explain, 20, seed, "judge", "explain"),
        draw(score, 20, seed, "judge", "score"),
    )


def same_list_same_seed(documents: list[int], seed: int) -> tuple[list[int], list[int]]:
    """The known leak: both are drawn from one list by generators of one seed."""
    rows = range(len(documents))
    first, second = (np.random.default_rng(seed).choice(rows, 20, replace=False) for _ in "ab")
    return first.tolist(), second.tolist()


def split_by_row(documents: list[int], seed: int) -> tuple[list[int], list[int]]:
    """The leak next to it: no context twice, but neighbours from one document on both sides."""
    rows = np.random.default_rng(seed).permutation(len(documents)).tolist()
    return rows[:20], rows[20:40]


def leaks(sampler: Sampler, seed: int) -> bool:
    explain, score = sampler(DOCUMENTS, seed)
    assert len(explain) == len(score) == 20
    try:
        check_disjoint([DOCUMENTS[i] for i in explain], [DOCUMENTS[i] for i in score])
    except StudyError:
        return True
    return False


def test_the_known_leak_is_found_and_ours_has_none() -> None:
    seeds = range(20)
    assert all(leaks(same_list_same_seed, seed) for seed in seeds)
    assert any(leaks(split_by_row, seed) for seed in seeds)
    assert not any(leaks(ours, seed) for seed in seeds)


def test_the_message_says_how_many_and_what_to_do() -> None:
    with pytest.raises(StudyError, match=r"2 documents are on both sides, e\.g\. 1; .*split"):
        check_disjoint([1, 2, 3], [2, 1, 5])


@given(st.lists(st.integers(0, 50)), st.integers(0, 5), st.floats(0, 1))
def test_every_context_is_on_one_side_with_its_document(
    documents: list[int], seed: int, share: float
) -> None:
    explain, score = split(documents, seed, share)
    assert sorted(explain + score) == list(range(len(documents)))
    check_disjoint([documents[i] for i in explain], [documents[i] for i in score])
    assert all(side_of(documents[i], seed, share) == "explain" for i in explain)


def test_sides_are_fair_and_another_seed_has_others() -> None:
    explain, _ = split(range(10_000), 0)
    assert 4800 < len(explain) < 5200
    assert 0.45 < np.mean([side_of(d, 0) == side_of(d, 1) for d in range(10_000)]) < 0.55
    assert 900 < len(split(range(10_000), 0, share=0.1)[0]) < 1100
    assert side_of("a", 0) != side_of("a", 1) or side_of("b", 0) != side_of("b", 1)


def test_draws_of_two_purposes_differ_and_order_does_not_matter() -> None:
    items = list(range(100))
    first = draw(items, 30, 0, "explain")
    assert first == draw(items[::-1], 30, 0, "explain")
    assert 2 <= len(set(first) & set(draw(items, 30, 0, "score"))) <= 18  # 9 by chance
    assert draw(items, 1000, 0, "x") != items
    assert sorted(draw(items, 1000, 0, "x")) == items


def test_names_of_parts_are_not_run_together() -> None:
    assert fraction("a/b") != fraction("a", "b") != fraction("a", "/b")
    assert fraction(1) != fraction("1")
    assert 0 <= fraction(0, "x") < 1
