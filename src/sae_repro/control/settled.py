"""The rule by which a training was long enough: its loss settled before the learning rate fell."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

CHANGE = 0.01


def compared(steps: int, lr_decay: float) -> tuple[int, int, int]:
    """The edges of the two tenths of the steps whose losses are compared.

    They are the last two before the learning rate decays over the last `lr_decay` of the steps:
    there the loss falls in any case.
    """
    first, middle, last = (round((1 - lr_decay - back) * steps) for back in (0.2, 0.1, 0.0))
    return first, middle, last


def loss_change(
    rows: Sequence[Mapping[str, Any]], steps: int, lr_decay: float
) -> tuple[float, float]:
    """(relative fall of the loss over a tenth of the steps, its standard error).

    The tenths are `compared`; `rows` are of metrics.jsonl. NaN of too few rows.
    """
    before, after = (
        np.array([row["loss"] for row in rows if first <= row["step"] < last])
        for first, last in pairwise(compared(steps, lr_decay))
    )
    if min(len(before), len(after)) < 2:
        return math.nan, math.nan
    error = math.hypot(*(float(np.std(v, ddof=1)) / math.sqrt(len(v)) for v in (before, after)))
    level = abs(float(after.mean()))
    return float(before.mean() - after.mean()) / level, error / level


def has_settled(change: float, error: float) -> bool:
    """Whether it changes by less than `CHANGE`, as far as the noise of the batches lets one see."""
    return abs(change) - 2 * error < CHANGE
