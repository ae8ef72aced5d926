"""Adam as in the papers, with gradient clipping and decoder rows held at norm one."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sae_repro.autoencoders import LATENT_AXIS, Weights
from sae_repro.params import Cell

MOMENTS = ("exp_avg", "exp_avg_sq")


class Optimiser:
    """One step of Adam on an SAE's weights; `state` and `restore` hold all that Adam remembers."""

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
        """Backward, the decoder's radial gradient removed, clip, Adam, rows to norm one, θ ≥ 0."""
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
        with torch.no_grad():
            if self._cell.decoder == "unit_norm":
                norm = weights.W_dec.norm(dim=1, keepdim=True)
                weights.W_dec.div_(norm.clamp_min(torch.finfo(norm.dtype).tiny))
            if weights.threshold is not None:
                weights.threshold.clamp_min_(0.0)

    def forget(self) -> None:
        """Back to Adam's first step, for all weights."""
        for tensor in self._named.values():
            for value in self._adam.state[tensor].values():
                value.zero_()

    def permute(self, order_k: Tensor) -> None:
        """Latents, with their moments, in the order `order_k` [K]; in place."""
        with torch.no_grad():
            for name, axis in LATENT_AXIS.items():
                if name in self._named:
                    for tensor in (self._named[name], *self.moments(name)):
                        tensor.copy_(tensor.index_select(axis, order_k))

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
