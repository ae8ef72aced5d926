"""Atoms of single latents: decoder rows, and the latents with the nearest ones."""

import torch
from torch import Tensor

from sae_repro.autoencoders.saved import SAE
from sae_repro.errors import StudyError


def decoder_weights(sae: SAE, latent: int) -> Tensor:
    """d_k [D], the atom of `latent`; StudyError outside 0 … K−1."""
    if not 0 <= latent < sae.d_sae:
        raise StudyError(f"latent {latent}: this SAE has 0 … {sae.d_sae - 1}; choose one of them")
    return sae.weights.W_dec[latent]


def neighbours(sae: SAE, latent: int, n: int = 10) -> list[tuple[int, float]]:
    """The n latents with the nearest atoms, by cosine, largest first.

    Neither `latent` itself nor latents without an atom (zero rows) are among them, so that there
    can be fewer than n. StudyError where `latent` has no atom.
    """
    atom = decoder_weights(sae, latent)
    if not bool(atom.any()):
        raise StudyError(f"latent {latent}: its atom is zero and has no neighbours; choose another")
    norm_k = sae.weights.W_dec.norm(dim=1)
    cosine_k = sae.weights.W_dec @ atom / (norm_k * atom.norm())
    candidates = norm_k > 0
    candidates[latent] = False
    cosine_k = torch.where(candidates, cosine_k, -torch.inf)
    values, latents = cosine_k.topk(min(n, int(candidates.sum())))
    return list(zip(latents.tolist(), values.tolist(), strict=True))
