"""The journal of a cell's training: rows of metrics.jsonl and revival.jsonl."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sae_repro.training.steps import Taken

DEAD_WINDOW = 100_000  # tokens of silence after which a training curve counts a latent as dead


@dataclass
class Journal:
    """All rows so far; a checkpoint holds them, so that a resumed cell loses none."""

    metrics: list[dict[str, Any]] = field(default_factory=list)
    revivals: list[dict[str, Any]] = field(default_factory=list)


def metrics_row(
    step: int, taken: Taken, x_nd: Tensor, silent_k: Tensor, *, lr: float
) -> dict[str, Any]:
    """The row of a step from its batch x [N, D] as training saw it. Reads only.

    `silent_k` [K] are the tokens since each latent fired.
    """
    with torch.no_grad():
        return {
            "step": step,
            "tokens": (step + 1) * len(x_nd),
            "loss": float(taken.loss),
            **{name: float(term) for name, term in taken.terms.items()},
            "fvu": float(taken.error() / (x_nd - x_nd.mean(0)).square().sum()),
            "l0": float(taken.code.l0),
            "dead": (silent_k >= DEAD_WINDOW).sum().item(),
            "lr": lr,
        }


def as_json(row: Mapping[str, float]) -> dict[str, float | None]:
    """A row as JSON can hold it: None stands for what is not finite."""
    return {name: value if math.isfinite(value) else None for name, value in row.items()}
