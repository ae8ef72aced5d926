"""Latents of two SAEs as partners: copies are found, chance is not, and order does not matter."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.autoencoders.partners import (
    Directions,
    Match,
    agreed_cosines,
    found_by_all,
    one_to_one,
    stability,
    unit,
)


def directions(k: int, d: int = 16, seed: int = 0) -> Directions:
    rng = np.random.default_rng(seed)
    decoder = unit(rng.standard_normal((k, d)))
    encoder = unit(decoder + 0.1 * rng.standard_normal((k, d)))
    return Directions(np.arange(k), encoder, decoder)


def ordered(of: Directions, order: np.ndarray) -> Directions:
    return Directions(of.latent[order], of.encoder_kd[order], of.decoder_kd[order])


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_the_assignment_is_the_best_of_all(a: int, b: int, seed: int) -> None:
    score = np.random.default_rng(seed).random((a, b))
    rows, columns = one_to_one(score)
    assert len(rows) == min(a, b)
    tall = score if a >= b else score.T
    best = max(
        sum(tall[row, column] for column, row in enumerate(rows))
        for rows in permutations(range(tall.shape[0]), tall.shape[1])
    )
    assert score[rows, columns].sum() == pytest.approx(best)


def test_a_permuted_copy_is_found_whole_and_each_latent_is_as_stable_as_can_be() -> None:
    first = directions(40)
    order = np.random.default_rng(1).permutation(40)
    copy = ordered(first, order)
    match = Match.of(first, copy)
    assert match.cosine == pytest.approx(np.ones(40))
    assert (order[match.columns] == match.rows).all()
    for agreed in agreed_cosines(first, copy):
        assert agreed == pytest.approx(np.ones(40))
    assert stability(0, 40, {(0, 1): match}) == pytest.approx(np.ones(40))


def test_latents_that_are_left_over_count_as_not_found() -> None:
    first = directions(10)
    part = ordered(first, np.arange(4))
    matches = {(0, 1): Match.of(first, part), (0, 2): Match.of(first, first)}
    assert stability(0, 10, matches) == pytest.approx([1.0] * 4 + [0.5] * 6)
    assert stability(1, 4, matches) == pytest.approx(np.ones(4))
    last = ordered(first, np.array([9, 7]))
    found = stability(1, 10, {(0, 1): Match.of(last, first)})
    assert found == pytest.approx([0] * 7 + [1, 0, 1])
    assert np.isnan(stability(3, 5, matches)).all()


def test_partners_whose_encoders_disagree_are_not_shared() -> None:
    first = directions(20)
    swapped = np.arange(20)
    swapped[:2] = 1, 0
    other = Directions(first.latent, first.encoder_kd[swapped], first.decoder_kd)
    for agreed in agreed_cosines(first, other):
        assert (agreed[:2] < -1).all()
        assert agreed[2:] == pytest.approx(np.ones(18))


def test_a_latent_that_points_the_other_way_matches_but_is_not_shared() -> None:
    first = directions(5, d=8)
    turned = Directions(first.latent, -first.encoder_kd, -first.decoder_kd)
    assert Match.of(first, turned).cosine == pytest.approx(np.ones(5))
    assert (np.concatenate(agreed_cosines(first, turned)) < 0.9).all()


def test_the_consensus_is_what_all_have_and_nothing_else() -> None:
    common = directions(6, d=64)
    members = []
    for seed in range(3):
        own = directions(5, d=64, seed=10 + seed)
        whole = Directions(
            np.arange(11),
            np.concatenate([common.encoder_kd, own.encoder_kd]),
            np.concatenate([common.decoder_kd, own.decoder_kd]),
        )
        members.append((whole, np.random.default_rng(seed).permutation(11)))
    shuffled = [Directions(np.arange(11), whole.encoder_kd[order], whole.decoder_kd[order])
                for whole, order in members]  # fmt: skip
    chains = found_by_all(shuffled, 0.7)
    assert len(chains) == 6
    for chain in chains:
        assert len({int(order[at]) for at, (_, order) in zip(chain, members, strict=True)}) == 1
    assert found_by_all([*shuffled, directions(9, d=64, seed=77)], 0.7).shape == (0, 4)


def test_ties_are_decided_by_number() -> None:
    """Twins are as near to each other's partners: the lower one is taken, whatever the order."""
    twin = unit(np.ones((1, 4)))
    both = Directions(np.arange(2), np.repeat(twin, 2, 0), np.repeat(twin, 2, 0))
    assert found_by_all([both, both], 0.5).tolist() == [[0, 0]]
