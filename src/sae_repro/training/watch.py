"""The watch over a cell's training: not finite, diverged or collapsed.

It notes on every step, without a question to the device, and is read when logging. A failure
depends on the steps alone: the intervals of logging and checkpoints decide only when it is
reported.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sae_repro.autoencoders import SAE
from sae_repro.params import Cell, Train
from sae_repro.training.checkpoint import load_checkpoint
from sae_repro.training.journal import Journal
from sae_repro.training.steps import Taken

EXPLODED = 10  # a batch's squared error over its power, or over the first step's ratio if above 1
STARVED_L0 = 0.01  # of a batch: nothing is left to tell activations by
COLLAPSED_STEPS = 20  # starved, beyond what revival takes to act
FAULTS = (
    "the loss is not finite",
    f"diverged: the squared error is over {EXPLODED} times that of predicting zero on the same "
    f"batch (and over {EXPLODED} times what this ratio was at the first step)",
    f"collapsed: less than one latent fires in {1 / STARVED_L0:g} tokens",
)


class Diverged(Exception):  # noqa: N818 - an outcome, not an error in the program
    """A cell failed (see `FAULTS`); the message names step, terms, checkpoint."""

    def __init__(self, message: str, journal: Journal) -> None:
        super().__init__(message)
        self.journal = journal


class Watch:
    """The first step with each of `FAULTS`.

    A batch's squared error is held against its own power, what predicting zero gets wrong on it, so
    that a few massive activations in a batch, which raise both, are no divergence. `power` is that
    of a usual activation, in the reconstruction's reduction: a batch with less counts as one of it.
    """

    def __init__(self, cell: Cell, settings: Train, steps: int, power: float) -> None:
        device = torch.device(settings.device)
        self._steps, self._power = steps, power
        self._mean = cell.reconstruction == "mean"
        self._patience = COLLAPSED_STEPS + _revival_steps(cell, settings)
        self._starved = torch.zeros((), dtype=torch.int64, device=device)
        self._limit = torch.tensor(torch.inf, dtype=torch.float64, device=device)
        """How many times a batch's power its squared error may be."""
        self._first = torch.full((len(FAULTS),), -1, dtype=torch.int64, device=device)

    def note(self, step: int, taken: Taken, l0: Tensor | float, x_nd: Tensor) -> None:
        """Take in one step, its L0 and its batch x [N, D] as the step saw it."""
        if not isinstance(taken.loss, Tensor) and self._healthy(step, taken, float(l0)):
            return
        device = self._limit.device
        loss, error, l0 = (
            torch.as_tensor(value, dtype=torch.float64, device=device)
            for value in (taken.loss, taken.terms["reconstruction"], l0)
        )
        power = x_nd.double().square().sum() / (x_nd.numel() if self._mean else len(x_nd))
        power.clamp_min_(max(self._power, torch.finfo(power.dtype).tiny))
        if step == 0:
            self._limit.copy_(EXPLODED * (error / power).clamp_min(1))
        self._starved.copy_(torch.where(l0 < STARVED_L0, self._starved + 1, 0))
        # on the last step nothing is left that could bring a latent back
        patience = 1 if step == self._steps - 1 else self._patience
        diverged = error > self._limit * power
        healthy = torch.stack([loss.isfinite(), ~diverged, self._starved < patience])
        self._first.copy_(torch.where(healthy | (self._first >= 0), self._first, step))

    def _healthy(self, step: int, taken: Taken, l0: float) -> bool:
        """Whether a step changes nothing here; to be asked on a CPU, where the answer is there."""
        return (
            step > 0
            and math.isfinite(taken.loss)
            and float(taken.terms["reconstruction"]) <= self._limit.item() * self._power
            and l0 >= STARVED_L0
            and not self._starved.item()
        )

    def fault(self) -> tuple[int, int] | None:
        """(step, number in FAULTS) of the first fault noted."""
        faults = [(step, kind) for kind, step in enumerate(self._first.tolist()) if step >= 0]
        return min(faults, default=None)

    def check(self, last: Mapping[str, float], journal: Journal, checkpoint: Path) -> None:
        """Diverged, where something was noted.

        `last` is the step's row, `checkpoint` the path of the last one.
        """
        fault = self.fault()
        if fault is None:
            return
        step, kind = fault
        terms = ", ".join(f"{k} {v:.4g}" for k, v in last.items() if k not in ("step", "tokens"))
        saved = load_checkpoint(checkpoint)
        raise Diverged(
            f"{FAULTS[kind]} from step {step} on (step {last['step']}: {terms}); last good "
            "checkpoint: " + (f"step {saved[0]}" if saved else "none"),
            journal,
        )

    def state(self) -> dict[str, Tensor]:
        """Its whole state by name; written to in place to resume."""
        return {
            "watch.limit": self._limit,
            "watch.starved": self._starved,
            "watch.first": self._first,
        }


def check_finite(sae: SAE, journal: Journal) -> None:
    """Diverged, where a weight of the finished `sae` is not finite in its precision."""
    broken = [name for name, t in sae.weights.named().items() if not bool(t.isfinite().all())]
    if broken:
        raise Diverged(f"not finite after the last step: {', '.join(broken)}", journal)


def _revival_steps(cell: Cell, settings: Train) -> int:
    """Steps that revival takes to act on a latent that has fallen silent; 0 without revival."""
    match cell.revival_row.patience:
        case "resample_every":
            return cell.resample_every
        case "dead_tokens":
            return -(-cell.dead_tokens // settings.batch_size)
        case _:
            return 0
