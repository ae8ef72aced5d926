"""Timing of several steps in turn: CPU time, medians, as ratios to the first of them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .steps import GEMM, Step

WARM_UP = 2  # rounds that count for nothing


@dataclass
class Rounds:
    """Times of the steps by name; `turn` runs each of them once on the next batch."""

    steps: Mapping[str, Step]
    batches: Sequence[Tensor]
    repeats: int = 1
    """Steps of one after another within a turn, where one alone is too short to time."""
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def turn(self) -> None:
        """One round: every step on the same batch."""
        number = len(next(iter(self.seconds.values()), []))
        batch = self.batches[number % len(self.batches)]
        for name, step in self.steps.items():
            start = time.process_time()
            for _ in range(self.repeats):
                step(batch)
            taken = (time.process_time() - start) / self.repeats
            self.seconds.setdefault(name, []).append(taken)

    def rows(self) -> list[dict[str, object]]:
        """A row per step: ms of CPU and the ratio to the encoder product, with quartiles."""
        gemm = float(np.median(self.seconds[GEMM][WARM_UP:]))
        found: list[dict[str, object]] = []
        for name, all_seconds in self.seconds.items():
            seconds = np.array(all_seconds[WARM_UP:])
            q1, median, q3 = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
            row: dict[str, object] = {"step": name, "n": len(seconds)}
            for end, value in {"": median, "_q1": q1, "_q3": q3}.items():
                row[f"ms{end}"] = round(1e3 * value, 4)
                row[f"ratio{end}"] = round(value / gemm, 3)
            found.append(row)
        return found
