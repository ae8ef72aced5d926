"""Hash draws: uniform, independent by salt, and blind to order and company."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from sae_repro.numerics.hashing import fingerprint, least_hash, uniform_hash

N = 50_000
NUMBERS = np.arange(N)


@pytest.mark.parametrize("parts", [(NUMBERS,), (NUMBERS % 7, NUMBERS), (NUMBERS * 2**32, NUMBERS)])
def test_draws_are_uniform_and_neighbours_independent(parts: tuple[np.ndarray, ...]) -> None:
    draw = uniform_hash(1, "a use", *parts)
    assert draw.min() >= 0 and draw.max() < 1
    assert kstest(draw, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(draw[:-1], draw[1:])[0, 1]) < 0.02


@pytest.mark.parametrize("other", [(1, "another use"), (2, "a use"), (11, "a use")])
def test_two_uses_of_a_seed_and_two_seeds_of_a_use_are_independent(other: tuple[int, str]) -> None:
    a, b = uniform_hash(1, "a use", NUMBERS), uniform_hash(*other, NUMBERS)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02
    # nor do halves agree: each quarter of the plane has its share
    quarters = np.bincount(2 * (a < 0.5) + (b < 0.5), minlength=4) / N
    assert quarters == pytest.approx(np.full(4, 0.25), abs=0.01)


def test_seed_and_salt_do_not_run_into_one_another() -> None:
    assert (uniform_hash(1, "1/x", NUMBERS) != uniform_hash(11, "/x", NUMBERS)).all()


@given(st.integers(0, 99), st.lists(st.integers(0, 2**40), min_size=1, max_size=40))
@settings(deadline=None)
def test_a_draw_depends_on_no_order_and_no_companion(seed: int, numbers: list[int]) -> None:
    part = np.array(numbers)
    whole = uniform_hash(seed, "x", part, part % 3)
    assert np.array_equal(uniform_hash(seed, "x", part[::-1], part[::-1] % 3), whole[::-1])
    alone = [uniform_hash(seed, "x", one, one % 3)[0] for one in part[:, None]]
    assert whole.tolist() == alone


def test_the_order_of_the_parts_matters() -> None:
    a, b = NUMBERS[:-1], NUMBERS[1:]
    assert (uniform_hash(0, "x", a, b) != uniform_hash(0, "x", b, a)).all()


@pytest.mark.parametrize("seed", [0, 2**32, 2**64 - 1, 2**64, 2**100])
def test_seeds_of_any_size_draw_each_for_itself(seed: int) -> None:
    draw = uniform_hash(seed, "x", NUMBERS)
    assert draw.mean() == pytest.approx(0.5, abs=0.01)
    assert (draw != uniform_hash(seed + 1, "x", NUMBERS)).all()


def test_whole_numbers_of_64_bits_draw_each_for_itself() -> None:
    ends = np.array([0, 1, 2**63, 2**64 - 1], dtype=np.uint64)
    assert len(set(uniform_hash(0, "x", ends).tolist())) == 4
    assert uniform_hash(0, "x", np.array([-1])) == uniform_hash(0, "x", ends[3:])


@given(
    st.lists(st.integers(0, 10**6), unique=True, max_size=60), st.integers(0, 70), st.integers(0, 9)
)
@settings(deadline=None)
def test_the_least_hashes_are_the_first_of_all_in_order(
    numbers: list[int], n: int, seed: int
) -> None:
    among = np.array(numbers, dtype=np.int64)
    ordered = sorted(numbers, key=lambda i: float(uniform_hash(seed, "x", np.array([i]))[0]))
    assert least_hash(among, n, seed, "x").tolist() == ordered[:n]


def test_the_least_hashes_are_a_fair_sample_and_grow_by_joining() -> None:
    among = np.arange(40)
    drawn = np.zeros(40)
    for seed in range(2000):
        chosen = least_hash(among, 10, seed, "x")
        assert least_hash(among, 15, seed, "x")[:10].tolist() == chosen.tolist()
        drawn[chosen] += 1
    assert drawn == pytest.approx(np.full(40, 500), abs=100)  # five standard deviations


def test_parts_of_the_least_hash_give_each_its_own_draw() -> None:
    among = np.arange(100)
    first, second = (least_hash(among, 10, 0, "x", np.full(100, part)) for part in (1, 2))
    assert first.tolist() != second.tolist()


def test_copies_share_a_fingerprint_and_nothing_else_does() -> None:
    assert fingerprint(b"text", 0) == fingerprint(b"text", 0)
    marks = {fingerprint(i.to_bytes(4, "little"), seed) for i in range(5000) for seed in (0, 1)}
    assert len(marks) == 10_000
    assert {len(mark) for mark in marks} == {16}
