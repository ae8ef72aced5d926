"""Gradients by hand, given out in blocks of latents while these are in the cache."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_repro.training.steps.workspace import Floats

Rows = Callable[[int, int], Floats]
"""The gradient rows [b − a, D] of latents a … b − 1; the caller may write to them."""


@dataclass
class Revived:
    """What dead latents learn from auxk: rows [n, D] of W_encᵀ and W_dec of the latents [n]."""

    latents: npt.NDArray[np.int64]
    encoder_nd: Floats
    decoder_nd: Floats


@dataclass
class Gradients:
    """∂loss of every weight: `small` by name, W_encᵀ and W_dec [K, D] by `rows`."""

    small: dict[str, Floats]
    encoder: Rows
    decoder: Rows
    w_dec: Floats
    norm_slope: Floats | None = None
    """∂/∂‖d‖ / ‖d‖, where the penalty weighs by norms: [K, 1], or [K, D] where each entry of d_k
    has a norm of its own hook's."""
    revived: Revived | None = None

    def rows(self, a: int, b: int) -> tuple[Floats, Floats]:
        """(of W_encᵀ, of W_dec), [b − a, D] each, to be asked for once."""
        encoder, decoder = self.encoder(a, b), self.decoder(a, b)
        if self.norm_slope is not None:
            decoder += self.norm_slope[a:b] * self.w_dec[a:b]
        if self.revived is not None:
            latents = self.revived.latents  # each once
            first, last = np.searchsorted(latents, [a, b])
            at = latents[first:last] - a
            encoder[at] += self.revived.encoder_nd[first:last]
            decoder[at] += self.revived.decoder_nd[first:last]
        return encoder, decoder
