"""Named generators: the same draws for the same name, others for any other."""

import numpy as np
import pytest

from sae_repro.numerics.random import generator


def draws(*name: int | str) -> np.ndarray:
    return generator(*name).random(1000)


def test_a_name_gives_the_same_draws_every_time() -> None:
    assert np.array_equal(draws(0, "cell", "order", 3), draws(0, "cell", "order", 3))


@pytest.mark.parametrize("other", [(1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a"), ("a", 0, 0)])
def test_another_name_draws_independently(other: tuple[int | str, ...]) -> None:
    assert abs(np.corrcoef(draws(0, "a", 0), draws(*other))[0, 1]) < 0.15


def test_no_global_generator_is_touched() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    draws(0, "a")
    assert np.array_equal(np.random.get_state()[1], before)
