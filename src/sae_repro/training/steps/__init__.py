"""One training step: losses, gradients, and the code without its zeros.

    step = step_of(cell, weights, epsilon=epsilon)
    taken = step.take(x_nd, lengths=[d_sae], lambda_=0.01, dead_k=None)

reference   autograd on `autoencoders.training_losses`, dense: the GPU's way
by_hand     the same without autograd: the CPU's way
layouts     all entries of a code, or only those that may fire
nesting     which of those belong to which prefix, where that differs from token to token
activation  z from u, ∂u from ∂z
slopes      penalties and their slopes
auxiliary   auxk on the dead latents alone
gradients   given out in blocks of latents
codes       losses and code, for the trainer
workspace   memory that outlives a step
"""

from typing import Protocol

from torch import Tensor

from sae_repro.autoencoders import Weights
from sae_repro.params import Cell
from sae_repro.training.steps.activation import ACTIVATIONS
from sae_repro.training.steps.by_hand import ByHand
from sae_repro.training.steps.codes import StepCode, Taken
from sae_repro.training.steps.gradients import Gradients
from sae_repro.training.steps.reference import Reference
from sae_repro.training.steps.slopes import PHI

__all__ = ["ByHand", "Gradients", "Reference", "Step", "StepCode", "Taken", "step_of"]


class Step(Protocol):
    """The steps of one cell."""

    def take(
        self, x_nd: Tensor, *, lengths: list[int], lambda_: float | Tensor, dead_k: Tensor | None
    ) -> Taken:
        """The step on a batch x [N, D]; arguments as of `autoencoders.training_losses`."""


def step_of(
    cell: Cell, weights: Weights, *, epsilon: float, autocast: bool = False
) -> ByHand | Reference:
    """How steps of a cell are computed where `weights` are; `epsilon` is JumpReLU's kernel width.

    By hand on a CPU, but not under `autocast` (products in bfloat16), nor where a formula is
    autograd's alone.
    """
    known = cell.activation in ACTIVATIONS and (
        cell.penalty in PHI or cell.penalty_row.counts or cell.penalty == "none"
    )
    if weights.W_enc.device.type == "cpu" and not autocast and known:
        return ByHand(cell, weights, epsilon=epsilon)
    return Reference(cell, weights, epsilon, autocast)
