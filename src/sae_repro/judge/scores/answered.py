"""Pairs of a truth and its answer; unparsable answers are left out."""

from collections.abc import Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def answered_pairs(
    truth: Sequence[Sequence[A]], answers: Sequence[Sequence[B] | None]
) -> list[tuple[Sequence[A], Sequence[B]]]:
    """The pairs with an answer; ValueError where it has another length than the truth."""
    if len(truth) != len(answers):
        raise ValueError(f"{len(truth)} truths for {len(answers)} answers")
    pairs = [(t, a) for t, a in zip(truth, answers, strict=True) if a is not None]
    for t, a in pairs:
        if len(t) != len(a):
            raise ValueError(f"an answer of length {len(a)} to {len(t)} items")
    return pairs
