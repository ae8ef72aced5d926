"""When a training counts as settled."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from sae_repro.control.settled import compared, has_settled, loss_change

STEPS = 1000


def rows(loss: Callable[[float], float], noise: float = 0.0, every: int = 4) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {"step": s, "loss": loss(s / STEPS) * (1 + noise * rng.standard_normal())}
        for s in range(0, STEPS, every)
    ]


def settled(loss: Callable[[float], float], noise: float = 0.0) -> bool:
    return has_settled(*loss_change(rows(loss, noise), STEPS, 0.2))


def test_the_change_is_between_the_last_two_tenths_before_the_decay() -> None:
    """By hand: 3 on [.6, .7), 2 on [.7, .8); what is before and after does not count."""
    change, error = loss_change(
        rows(lambda t: 9 if t < 0.6 else 3 if t < 0.7 else 2 if t < 0.8 else 0.1), STEPS, 0.2
    )
    assert (change, error) == (pytest.approx(0.5), 0)


def test_only_the_rows_between_the_edges_are_read() -> None:
    """So that no other step of a trial need be logged."""
    every = rows(lambda t: 2 - t, 0.1)
    first, _, last = compared(STEPS, 0.2)
    within = [row for row in every if first <= row["step"] < last]
    assert len(within) == len(every) // 5
    assert loss_change(within, STEPS, 0.2) == loss_change(every, STEPS, 0.2)


@pytest.mark.parametrize(
    ("loss", "noise", "expected"),
    [
        (lambda t: 1.0, 0.0, True),
        (lambda t: 1.0, 0.2, True),
        (lambda t: 1 - 0.5 * t, 0.0, False),
        (lambda t: 1 - 0.5 * t, 0.02, False),
        (lambda t: 1 + 0.5 * t, 0.02, False),  # it rises: λ moves, or it breaks
        (lambda t: 1 + math.exp(-5 * t), 0.0, False),
        (lambda t: 1 + math.exp(-20 * t), 0.0, True),
    ],
)
def test_a_loss_that_still_moves_has_not_settled(
    loss: Callable[[float], float], noise: float, expected: bool
) -> None:
    assert settled(loss, noise) is expected


def test_a_run_too_short_to_tell_has_no_change() -> None:
    assert all(math.isnan(v) for v in loss_change(rows(lambda t: 1.0, every=200), STEPS, 0.2))
