"""The code of a whole step, as far as training asks for it, put together from its parts."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class WholeCode:
    """Records of a batch's code [N, K] ≥ 0 that no process holds as a whole."""

    l0: Tensor | float
    """Latents that fire, per token."""
    fires_k: Tensor
    squares_k: Tensor | None = None
    """The mean of z² over the batch, [K]; None where the cell has no use for it."""
    least: float = torch.inf
    """The smallest positive z."""

    def fired_k(self) -> Tensor:
        """Whether each latent fires in the batch, [K]."""
        return self.fires_k

    def square_k(self) -> Tensor:
        """The mean of z² over the batch, [K]."""
        assert self.squares_k is not None  # of cells with `order` only
        return self.squares_k

    def smallest(self, norm_k: Tensor | None) -> Tensor:
        """The smallest positive z, +∞ where nothing fires; of unit rows of W_dec."""
        assert norm_k is None
        return torch.tensor(self.least)
