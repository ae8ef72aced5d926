"""Named generators: the same draws for the same name, others for any other."""

import hashlib
import pickle

import numpy as np
import pytest

from sae_repro.numerics.random import generator


def draws(*name: int | str) -> np.ndarray:
    return generator(*name).random(1000)


def test_a_name_gives_the_same_draws_every_time() -> None:
    assert np.array_equal(draws(0, "cell", "order", 3), draws(0, "cell", "order", 3))


def test_the_name_s_hash_is_philox_s_key() -> None:
    key = int.from_bytes(hashlib.sha256(b"0/cell/order/3").digest()[:16], "little")
    expected = np.random.Generator(np.random.Philox(key=key)).random(1000)
    found = generator(0, "cell", "order", 3)
    assert np.array_equal(pickle.loads(pickle.dumps(found)).random(1000), expected)
    assert np.array_equal(found.random(1000), expected)


@pytest.mark.parametrize("other", [(1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a"), ("a", 0, 0)])
def test_another_name_draws_independently(other: tuple[int | str, ...]) -> None:
    assert abs(np.corrcoef(draws(0, "a", 0), draws(*other))[0, 1]) < 0.15


def test_no_global_generator_is_touched() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    draws(0, "a")
    assert np.array_equal(np.random.get_state()[1], before)
