"""Adam as the papers use it: schedules, clipping, and decoder rows held at norm one."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sae_repro.autoencoders import Weights
from sae_repro.params import Cell

MOMENTS = ("exp_avg", "exp_avg_sq")


def learning_rate(cell: Cell, step: int, steps: int) -> float:
    """lr at `step` (from 0): linear warm-up, constant, linear decay to 0 over the last steps."""
    warmup, decay = cell.lr_warmup * steps, cell.lr_decay * steps
    up = (step + 1) / warmup if step + 1 < warmup else 1.0
    down = (steps - step) / decay if steps - step < decay else 1.0
    return cell.lr * min(up, down)


def penalty_weight(cell: Cell, step: int, steps: int) -> float:
    """λ at `step`: linear warm-up, then constant; 0 without a penalty."""
    if cell.lambda_ is None:
        return 0.0
    warmup = cell.lambda_warmup * steps
    return cell.lambda_ * min(1.0, (step + 1) / warmup) if warmup else cell.lambda_


class Optimiser:
    """One step of Adam on an SAE's weights; `state` and `restore` move all that it remembers."""

    def __init__(self, cell: Cell, weights: Weights) -> None:
        self._cell, self._weights = cell, weights
        self._named = weights.named()
        for tensor in self._named.values():
            tensor.requires_grad_(True)
        self._adam = torch.optim.Adam(
            self._named.values(), lr=cell.lr, betas=(0.9, 0.999), eps=cell.adam_eps, fused=True
        )
        for tensor in self._named.values():
            self._adam.state[tensor] = {
                "step": torch.zeros((), dtype=torch.float32, device=tensor.device),
                **{moment: torch.zeros_like(tensor) for moment in MOMENTS},
            }

    def step(self, loss: Tensor, lr: float) -> None:
        """Backward, the decoder's radial gradient removed, clip, Adam, rows back to norm one."""
        for tensor in self._named.values():
            tensor.grad = None
        loss.backward()
        self.update(lr)

    def update(self, lr: float) -> None:
        """As `step`, on gradients that are there already."""
        weights = self._weights
        if self._cell.decoder == "unit_norm":
            remove_radial(weights.W_dec)
        if self._cell.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(list(self._named.values()), self._cell.grad_clip)
        self._adam.param_groups[0]["lr"] = lr
        self._adam.step()
        if self._cell.decoder == "unit_norm":
            with torch.no_grad():
                norm = weights.W_dec.norm(dim=1, keepdim=True)
                weights.W_dec.div_(norm.clamp_min(torch.finfo(norm.dtype).tiny))

    def moments(self, name: str) -> tuple[Tensor, Tensor]:
        """Adam's m and v of the weight `name`; written to in place by a resampling."""
        state = self._adam.state[self._named[name]]
        return state[MOMENTS[0]], state[MOMENTS[1]]

    def state(self) -> dict[str, Tensor]:
        """Everything Adam remembers, by name."""
        return {
            f"adam.{name}.{key}": value
            for name, tensor in self._named.items()
            for key, value in self._adam.state[tensor].items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        for name, tensor in self._named.items():
            for key, value in self._adam.state[tensor].items():
                value.copy_(state[f"adam.{name}.{key}"])


def remove_radial(rows: Tensor) -> None:
    """Take the part along each (unit) row out of its gradient, in place.

    What is left is tangent to the sphere on which the rows are kept, so that Adam's moments hold
    no component that the normalisation would undo.
    """
    assert rows.grad is not None
    with torch.no_grad():
        radial = (rows.grad * rows).sum(dim=1, keepdim=True)
        rows.grad.addcmul_(radial, rows, value=-1)
