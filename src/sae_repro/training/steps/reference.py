"""A step's losses by autograd: on a GPU, under autocast, and what steps by hand are tested by."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_repro.autoencoders import Weights, training_losses
from sae_repro.autoencoders.transcoding import sides
from sae_repro.params import Cell
from sae_repro.training.steps.codes import Taken, dense_code


@dataclass
class Reference:
    """The steps of one cell; `autocast` has products in bfloat16."""

    cell: Cell
    weights: Weights
    epsilon: float
    autocast: bool = False

    @torch.enable_grad()
    def take(
        self, x_nd: Tensor, *, lengths: list[int], lambda_: float | Tensor, dead_k: Tensor | None
    ) -> Taken:
        """The step on a batch x [N, D]; arguments as of `autoencoders.training_losses`."""
        if isinstance(lambda_, Tensor):
            lambda_ = lambda_.to(x_nd.dtype)
        with torch.autocast(x_nd.device.type, torch.bfloat16, enabled=self.autocast):
            losses = training_losses(
                self.cell,
                self.weights,
                x_nd,
                lengths=lengths,
                lambda_=lambda_,
                dead_k=dead_k,
                epsilon=self.epsilon,
            )
        x_hat_nd = losses.x_hat_nd.detach()
        _, x_nd = sides(self.cell, self.weights, x_nd)
        return Taken(
            losses.loss,
            dict(losses.terms),
            lambda: (x_nd - x_hat_nd).square().sum(),
            dense_code(losses.z_nk.detach()),
        )
