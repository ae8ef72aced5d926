"""Agreement of a judge's answers with the truth, or with its own other answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.numerics.bootstrap import interval, sums

Floats = npt.NDArray[np.float64]
Pairs = Sequence[tuple[tuple[int, ...], tuple[int, ...] | None]]
"""Per question, two lists of 0 and 1; None where the second can't be read."""


def counts(a: Sequence[int], b: Sequence[int]) -> tuple[int, int, int, int]:
    """How often (a, b) is (1, 1), (0, 1), (1, 0) and (0, 0)."""
    pairs = list(zip(a, b, strict=True))
    return pairs.count((1, 1)), pairs.count((0, 1)), pairs.count((1, 0)), pairs.count((0, 0))


def kappa(counts_m4: Floats) -> Floats:
    """Cohen's κ of each row of `counts`; NaN where both sides say one thing throughout.

    Source: J. Cohen 1960, "A coefficient of agreement for nominal scales".
    """
    n = counts_m4.sum(axis=1)
    both, only_b, only_a, none = counts_m4.T
    with np.errstate(invalid="ignore", divide="ignore"):
        same = (both + none) / n
        chance = ((both + only_a) * (both + only_b) + (none + only_a) * (none + only_b)) / n**2
        found: Floats = np.where(chance < 1, (same - chance) / (1 - chance), np.nan)
    return found


def agreement(pairs: Pairs, name: str) -> dict[str, Any]:
    """Agreement of two lists of values, the second of which may be unreadable.

    The interval resamples questions: the contexts of one are no independent units.
    """
    read = [(a, b) for a, b in pairs if b is not None]
    row: dict[str, Any] = {
        "questions": len(pairs),
        "unreadable": len(pairs) - len(read),
        "n": 0,
        **dict.fromkeys(("agree", "ones", "kappa", "kappa_low", "kappa_high")),
    }
    if not read:
        return row
    counts_q4 = np.array([counts(a, b) for a, b in read], dtype=np.float64)
    total = counts_q4.sum(axis=0)
    value = float(kappa(total[None])[0])
    bounds = interval(kappa(sums(counts_q4, 0, "weak_judge", name)), least=0.5)
    return row | {
        "n": int(total.sum()),
        "agree": (total[0] + total[3]) / total.sum(),
        "ones": (total[0] + total[1]) / total.sum(),
        "kappa": value if np.isfinite(value) else None,
        "kappa_low": bounds[0] if bounds else None,
        "kappa_high": bounds[1] if bounds else None,
    }
