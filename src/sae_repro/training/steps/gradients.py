"""Gradients by hand, given out in blocks of latents while these are in the cache."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Rows = Callable[[int, int], Tensor]
"""The gradient rows [b − a, D] of latents a … b − 1; the caller may write to them."""


@dataclass
class Revived:
    """What dead latents learn from auxk: rows [n, D] of W_encᵀ and W_dec of the latents [n]."""

    latents: Tensor
    encoder_nd: Tensor
    decoder_nd: Tensor


@dataclass
class Gradients:
    """∂loss of every weight: `small` by name, W_encᵀ and W_dec [K, D] by `rows`."""

    small: dict[str, Tensor]
    encoder: Rows
    decoder: Rows
    w_dec: Tensor
    norm_slope_k: Tensor | None = None
    """∂/∂‖d‖ / ‖d‖ [K], where the penalty weighs by norms."""
    revived: Revived | None = None

    def rows(self, a: int, b: int) -> tuple[Tensor, Tensor]:
        """(of W_encᵀ, of W_dec), [b − a, D] each, to be asked for once."""
        encoder, decoder = self.encoder(a, b), self.decoder(a, b)
        if self.norm_slope_k is not None:
            decoder.addcmul_(self.norm_slope_k[a:b, None], self.w_dec[a:b])
        if self.revived is not None:
            latents = self.revived.latents
            first, last = torch.searchsorted(latents, torch.tensor([a, b])).tolist()
            at = latents[first:last] - a
            encoder.index_add_(0, at, self.revived.encoder_nd[first:last])
            decoder.index_add_(0, at, self.revived.decoder_nd[first:last])
        return encoder, decoder
