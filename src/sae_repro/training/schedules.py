"""Schedules over the steps: learning rate, the warm-up of λ, the rate of its controller."""

import torch
from torch import Tensor

from sae_repro.params import Cell


def learning_rate(cell: Cell, d_in: int, step: int, steps: int) -> float:
    """lr at `step` (from 0): linear warm-up, constant, linear decay to 0 over the last steps."""
    warmup, decay = cell.lr_warmup * steps, cell.lr_decay * steps
    up = (step + 1) / warmup if step + 1 < warmup else 1.0
    down = (steps - step) / decay if steps - step < decay else 1.0
    return cell.peak_lr(d_in) * min(up, down)


def penalty_warmup(cell: Cell, step: int, steps: int) -> float:
    """The fraction of λ that is in force at `step`: linear warm-up, then 1."""
    warmup = cell.lambda_warmup * steps
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def control_factor(cell: Cell, l0: Tensor | float, step: int, steps: int) -> Tensor | float:
    """By what the controller of `target_l0` multiplies λ after a batch of this L0, as `l0` is."""
    assert cell.target_l0 is not None
    rate = control_rate(cell, step, steps)
    if isinstance(l0, Tensor):
        return torch.where(l0 >= cell.target_l0, 1 + rate, 1 - rate)
    return 1 + rate if l0 >= cell.target_l0 else 1 - rate


def control_rate(cell: Cell, step: int, steps: int) -> float:
    """The fraction by which the controller of `target_l0` moves λ after `step`; 0 in warm-up.

    3e-4 per step, or what lets λ move by a factor e⁵ over the run where the run is short: 3e-4
    alone moves it by at most 1.35 in 1,000 steps.
    """
    first = int(cell.lambda_warmup * steps)
    return 0.0 if step < first else max(3e-4, min(0.5, 5 / (steps - first)))
