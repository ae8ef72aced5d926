"""`order: contribution`: latents sorted by what they contribute, so that prefixes hold the most."""

import torch
from torch import Tensor

CONTRIBUTION_DECAY = 0.95


class Contribution:
    """Running mean of each latent's a² = (z‖d‖)² [K]; moved by `order_k` alone."""

    def __init__(self, d_sae: int, device: torch.device) -> None:
        self.mean_k = torch.zeros(d_sae, device=device)

    def order_k(self, square_k: Tensor, norm_k: Tensor | None) -> Tensor | None:
        """The latents by falling contribution after a step; None where they are in order.

        `square_k` is the step's mean of z², `norm_k` is ‖d_k‖ where rows of W_dec aren't unit. A
        caller that sorts latents must sort `mean_k` too.
        """
        if norm_k is not None:
            square_k = square_k * norm_k.square()
        self.mean_k.mul_(CONTRIBUTION_DECAY).add_(square_k, alpha=1 - CONTRIBUTION_DECAY)
        order_k = self.mean_k.argsort(descending=True, stable=True)
        # on a GPU the question would stop the queue
        in_order = order_k.device.type == "cpu" and bool((order_k.diff() == 1).all())
        return None if in_order else order_k
