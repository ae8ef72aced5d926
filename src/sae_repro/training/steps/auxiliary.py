"""AuxK by hand: what the dead latents learn, on the dictionary of them alone."""

import numpy as np
import numpy.typing as npt

from sae_repro.autoencoders import selection
from sae_repro.training.steps.activation import where_positive
from sae_repro.training.steps.bags import rectified, squared
from sae_repro.training.steps.gradients import Revived
from sae_repro.training.steps.layouts import laid_out
from sae_repro.training.steps.workspace import Floats, Workspace


def revived(
    w_dec: Floats,
    x_nd: Floats,
    seen_nd: Floats,
    u_nd: Floats,
    dead: npt.NDArray[np.int64],
    left_nd: Floats,
    *,
    coefficient: float,
    mean: bool,
    workspace: Workspace,
) -> tuple[float, Revived, Floats] | None:
    """(the term, gradients, ∂b_enc of the dead latents) of `autoencoders.losses.auxk_loss`.

    `seen_nd` is what the encoder sees, `u_nd` [N, n] are the pre-activations of the latents `dead`,
    whose rows of W_dec are `w_dec` [n, D]; `left_nd` is x̂ − x. None where nothing is left over to
    explain.
    """
    total = squared(left_nd - left_nd.mean(0))
    if not total > 0:
        return None
    variance = squared(x_nd - x_nd.mean(0)) / (x_nd.size if mean else len(x_nd))
    weight = coefficient * variance / max(total, float(np.finfo(np.float32).tiny))
    k, n_dead = max(1, x_nd.shape[1] // 2), len(dead)
    found = selection.top_k(u_nd, k) if n_dead > k else selection.above(u_nd, 0.0)
    layout, u = laid_out(u_nd, found, w_dec.shape[1], [n_dead], workspace, "auxk.u")
    z = rectified(u)
    residual = layout.residual(z, w_dec, -left_nd, "auxk.residual")
    dz = layout.back(residual, w_dec, 2 * weight, "auxk.residual")
    where_positive(dz, z, out=dz)
    rows = Revived(
        dead,
        encoder_nd=layout.outer(dz, seen_nd, 1.0, "auxk.encoder")(0, n_dead),
        decoder_nd=layout.outer(z, residual, 2 * weight, "auxk.decoder")(0, n_dead),
    )
    return weight * residual.squares, rows, layout.sum_k(dz)
