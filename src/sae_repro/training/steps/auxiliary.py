"""AuxK by hand: what the dead latents learn, on the dictionary of them alone."""

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders import Weights, selection
from sae_repro.training.steps.activation import where_positive
from sae_repro.training.steps.gradients import Revived
from sae_repro.training.steps.layouts import laid_out
from sae_repro.training.steps.workspace import Workspace


def revived(
    weights: Weights,
    x_nd: Tensor,
    seen_nd: Tensor,
    u_nd: Tensor,
    dead: Tensor,
    left_nd: Tensor,
    *,
    coefficient: float,
    mean: bool,
    workspace: Workspace,
) -> tuple[float, Revived, Tensor] | None:
    """(the term, gradients, ∂b_enc of the dead latents) of `autoencoders.losses.auxk_loss`.

    `seen_nd` is what the encoder sees, `u_nd` [N, n] are the pre-activations of the latents `dead`,
    `left_nd` is x̂ − x. None where nothing is left over to explain.
    """
    total = float((left_nd - left_nd.mean(0)).square().sum())
    if not total > 0:
        return None
    variance = float((x_nd - x_nd.mean(0)).square().sum()) / (x_nd.numel() if mean else len(x_nd))
    weight = coefficient * variance / max(total, float(np.finfo(np.float32).tiny))
    k, n_dead = max(1, x_nd.shape[1] // 2), len(dead)
    found = selection.top_k(u_nd, k) if n_dead > k else selection.above(u_nd, 0.0)
    layout, u = laid_out(u_nd, found, [n_dead], workspace, "auxk.u")
    w_dec = weights.W_dec.detach()[dead]
    z = torch.relu_(u)
    residual = layout.residual(z, w_dec, -left_nd, "auxk.residual")
    dz = layout.back(residual, w_dec, 2 * weight, "auxk.residual")
    where_positive(dz, z, out=dz)
    rows = Revived(
        dead,
        encoder_nd=layout.outer(dz, seen_nd, 1.0, "auxk.encoder")(0, n_dead),
        decoder_nd=layout.outer(z, residual, 2 * weight, "auxk.decoder")(0, n_dead),
    )
    return weight * residual.squares, rows, layout.sum_k(dz)
