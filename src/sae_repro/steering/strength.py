"""The strength at which an intervention moves a model's predictions by a given KL."""

from collections.abc import Callable

TOLERANCE = 0.01
"""Of the KL that is asked for."""
STEPS = 32
EDGE = 0.1
"""Of a bracket, that the next guess keeps from its ends."""


def strength_at(
    kl_at: Callable[[float], float], target: float, *, start: float, limit: float
) -> tuple[float, float] | None:
    """(strength, KL there) with a KL within 1 % of `target` > 0; None where none to `limit` has.

    `kl_at` gives the KL of a strength, which need not rise everywhere: a crossing is found between
    0 and the first of `start`, 2·`start`, 4·`start` … that reaches the target, by interpolation in
    the square of the strength, as KL grows at first.
    """
    low, kl_low, high = 0.0, 0.0, start
    while (kl_high := kl_at(high)) < target:
        low, kl_low, high = high, kl_high, 2 * high
        if high > limit:
            return None
    strength, kl = high, kl_high
    for step in range(STEPS):
        if abs(kl - target) <= TOLERANCE * target:
            break
        # every fourth step halves: interpolation alone may creep towards one end
        part = 0.5 if step % 4 == 3 else (target - kl_low) / (kl_high - kl_low)
        guess = (low**2 + part * (high**2 - low**2)) ** 0.5
        edge = EDGE * (high - low)
        strength = min(max(guess, low + edge), high - edge)
        kl = kl_at(strength)
        if kl < target:
            low, kl_low = strength, kl
        else:
            high, kl_high = strength, kl
    return strength, kl
