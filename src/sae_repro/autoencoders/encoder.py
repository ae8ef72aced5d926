"""The nonzeros of codes, batch after batch, without the codes: z [N, K] is never laid out.

`SAE.encode` says what they are. Where it computes on the CPU, the pre-activations go into memory
that is kept from batch to batch, and what fires is found in them in one pass.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.autoencoders.saved import SAE
from sae_repro.autoencoders.selection import Indices, above, positions, top_k

Array = npt.NDArray[Any]


class Encoder:
    """The nonzeros of z [N, K] for batches x [N, D], with one SAE."""

    def __init__(self, sae: SAE) -> None:
        self.sae, weights = sae, sae.weights
        self._plain = weights.W_enc.device.type == "cpu" and weights.W_enc.dtype == torch.float32
        bias_k = torch.zeros_like(weights.b_enc) if sae.architecture == "gated" else weights.b_enc
        with torch.no_grad():
            if sae.apply_b_dec_to_input:
                bias_k = bias_k - weights.b_dec @ weights.W_enc
        self._bias_k = bias_k.detach()
        self._kept = torch.empty(0)

    def __call__(self, x_nd: Tensor) -> tuple[Indices, Array]:
        """(flat indices into z, rising; z > 0 there). NaN, of an SAE that diverged, counts."""
        if not self._plain or x_nd.dtype != torch.float32 or not len(x_nd):
            with torch.no_grad():
                return nonzeros(self.sae.encode(x_nd))
        u_nk = self._pre_activations(x_nd)
        if self.sae.architecture == "gated":
            return self._gated(u_nk)
        flat = self._fires(u_nk)
        return flat, u_nk.numpy().reshape(-1).take(flat)

    def _pre_activations(self, x_nd: Tensor) -> Tensor:
        """u [N, K], up to what a gated SAE adds; in the memory of the last batch's."""
        size = len(x_nd) * self.sae.d_sae
        if len(self._kept) < size:
            self._kept = torch.empty(size)
        u_nk = self._kept[:size].view(len(x_nd), -1)
        with torch.no_grad():
            torch.mm(x_nd, self.sae.weights.W_enc, out=u_nk)
            return u_nk.add_(self._bias_k)

    def _fires(self, u_nk: Tensor) -> Indices:
        sae = self.sae
        if sae.architecture == "topk":
            assert sae.k is not None
            return top_k(u_nk.numpy(), sae.k)
        if sae.architecture == "jumprelu":
            assert sae.weights.threshold is not None
            # not NaN, as a comparison has it
            bound_k = torch.clamp(sae.weights.threshold.detach(), min=0).numpy()
            return positions(np.greater(u_nk.numpy(), bound_k))
        return positions(above(u_nk.numpy(), 0.0))

    def _gated(self, a_nk: Tensor) -> tuple[Indices, Array]:
        weights = self.sae.weights
        assert weights.b_mag is not None and weights.r_mag is not None
        with torch.no_grad():
            grown_k, b_mag_k = weights.r_mag.exp().numpy(), weights.b_mag.numpy()
            open_nk = above((a_nk + weights.b_enc).numpy(), 0.0)
        flat = positions(open_nk)
        latent = flat % self.sae.d_sae
        value = a_nk.numpy().reshape(-1).take(flat)
        value = np.maximum(value * grown_k[latent] + b_mag_k[latent], 0)
        fires = value != 0
        return flat[fires], value[fires]


def nonzeros(z_nk: Tensor) -> tuple[Indices, Array]:
    """(flat indices into z [N, K] ≥ 0, rising; z there) of what is not 0: NaN too."""
    fires_nk = z_nk != 0
    # numpy searches a mask several times faster than torch does, or than either searches z
    flat = (
        positions(fires_nk.numpy())
        if fires_nk.device.type == "cpu"
        else fires_nk.flatten().nonzero()[:, 0].cpu().numpy()
    )
    return flat, z_nk.flatten()[torch.from_numpy(flat).to(z_nk.device)].cpu().numpy()
