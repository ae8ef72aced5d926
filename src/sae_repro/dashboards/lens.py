"""The logit lens: what a latent's atom adds to the logits, through the unembedding alone."""

from pathlib import Path

import torch
from torch import Tensor

from sae_repro.params import in_stream, weights_of
from sae_repro.readers.subject import load_plain


def unembedding(subject: Path, hook: str, width: int) -> Tensor | None:
    """W_U [D, V] of the language model in `subject`, neither folded nor centred.

    None where an atom has no meaning in it: of activations that are not of the residual stream, of
    another `width` than it, or of random weights.
    """
    if weights_of(hook) or not in_stream(hook):
        return None
    head = load_plain(subject, str(subject)).get_output_embeddings()
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.shape[1] != width:
        return None
    return weight.detach().float().T


def direct_logits(atoms_nd: Tensor, unembedding_dv: Tensor) -> Tensor:
    """[n, V]: d_k·W_U, the direct effect of a latent of activation 1 but for the final norm."""
    with torch.no_grad():
        return atoms_nd @ unembedding_dv
