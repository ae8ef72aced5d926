"""The trained tensors of an SAE and their initial values."""

from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from sae_repro.params import Cell

LATENT_AXIS = {"W_enc": 1, "b_enc": 0, "W_dec": 0, "threshold": 0, "b_mag": 0, "r_mag": 0}
"""Along which axis a tensor of `Weights` is indexed by latent; b_dec is by none."""


@dataclass
class Weights:
    """W_enc [D, K], b_enc [K], W_dec [K, D], b_dec [D], all of one dtype and device.

    While it is trained, W_enc lies in memory as [K, D]: what belongs to a latent lies together.

    A transcoder's W_dec [K, D_out] and b_dec [D_out] lie at its target hook; with a skip connection
    it has W_skip [D_out, D], oriented as in SAELens: x·W_skipᵀ is added to the decode.

    A crosscoder's D are the entries of several hooks side by side, `widths` of each.

    JumpReLU has thresholds θ [K] too. The gated SAE has the biases b_mag and log scales r_mag [K]
    of its magnitudes; its b_enc is the gate's bias (b_gate in the paper).
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    threshold: Tensor | None = None
    b_mag: Tensor | None = None
    r_mag: Tensor | None = None
    W_skip: Tensor | None = None
    widths: tuple[int, ...] = field(default=(), init=False)
    """Of a crosscoder in training: D_h of each of its hooks. No tensor, and so set by itself."""

    def named(self) -> dict[str, Tensor]:
        """The tensors that this architecture has, by name, in a fixed order."""
        tensors = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: t for name, t in tensors.items() if isinstance(t, Tensor)}

    def detached(self) -> "Weights":
        """The same memory outside of autograd."""
        detached = Weights(**{name: tensor.detach() for name, tensor in self.named().items()})
        detached.widths = self.widths
        return detached

    def norm_over_hooks(self) -> Tensor:
        """‖d_k‖ [K]; of a crosscoder Σ_h ‖d_k,h‖, over the parts of d_k at its hooks."""
        if not self.widths:
            norm_k: Tensor = self.W_dec.norm(dim=1)
            return norm_k
        return torch.stack(
            [torch.linalg.vector_norm(part, dim=1) for part in self.by_hook(self.W_dec)]
        ).sum(0)

    def by_hook(self, x_nd: Tensor) -> tuple[Tensor, ...]:
        """The columns [N, D_h] of `x_nd` [N, D] that belong to each of a crosscoder's hooks."""
        parts: tuple[Tensor, ...] = torch.split(x_nd, [*(self.widths or x_nd.shape[1:])], dim=1)
        return parts

    @property
    def d_in(self) -> int:
        """D."""
        return self.W_enc.shape[0]

    @property
    def d_out(self) -> int:
        """D_out, the width of what is reconstructed: D, but of a transcoder."""
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        """K."""
        return self.W_enc.shape[1]


def initial_weights(
    cell: Cell,
    d_in: int,
    x_nd: Tensor,
    rng: np.random.Generator,
    *,
    epsilon: float = 0.0,
) -> Weights:
    """Random unit directions, W_enc = W_decᵀ, biases 0, b_dec from a sample of inputs.

    Rows of W_dec have norm 1, or .1 under `l1_decoder_norm` (whose penalty weighs them).
    `x_nd` [N, D] is the sample; only `b_dec_init` uses it. Trained thresholds start at `epsilon`,
    all other tensors per latent at 0.

    Of a transcoder `x_nd` [N, D + D_out] has inputs and targets side by side; b_dec is of the
    targets, columns of W_enc are directions of their own, W_skip is 0.
    """
    d_out = x_nd.shape[1] - d_in if cell.target_hook is not None else d_in
    w_dec = _directions(cell, cell.width(d_in), d_out, rng)
    w_enc, w_skip = w_dec.clone().T, None
    if cell.target_hook is not None:
        x_nd = x_nd[:, d_in:]
        w_enc = _directions(cell, cell.width(d_in), d_in, rng).T
        w_skip = torch.zeros(d_out, d_in) if cell.skip else None
    match cell.b_dec_init:
        case "geometric_median":
            b_dec = geometric_median(x_nd)
        case "mean":
            b_dec = x_nd.double().mean(0)
        case _:
            b_dec = torch.zeros(d_out, dtype=torch.float64)
    k = len(w_dec)
    return Weights(
        W_enc=w_enc,
        b_enc=torch.zeros(k),
        W_dec=w_dec,
        b_dec=b_dec.to(torch.float32),
        **{
            name: torch.full((k,), epsilon if name == "threshold" else 0.0)
            for name in cell.activation_row.extra
        },
        W_skip=w_skip,
    )


def _directions(cell: Cell, k: int, d: int, rng: np.random.Generator) -> Tensor:
    """Random rows [K, D], fp32, of the norm that the decoder's have at the start."""
    directions = rng.standard_normal((k, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return torch.from_numpy(directions * cell.penalty_row.initial_norm).to(torch.float32)


def geometric_median(x_nd: Tensor, *, steps: int = 100, tolerance: float = 1e-7) -> Tensor:
    """The point y [D] with the least Σ‖x_n − y‖, fp64.

    Weiszfeld's iteration in the form of Vardi and Zhang (PNAS 2000), which neither stops nor
    divides by zero where an estimate falls on a data point.
    """
    x_nd = x_nd.double()
    y = x_nd.mean(0)
    scale = (x_nd - y).norm(dim=1).mean().clamp_min(torch.finfo(torch.float64).tiny)
    difference = torch.empty_like(x_nd)  # one for all: fresh memory costs more than a pass over it
    for _ in range(steps):
        torch.sub(x_nd, y, out=difference)
        distance = difference.norm(dim=1)
        coincident = distance <= 1e-12 * scale
        weight = torch.where(
            coincident, 0.0, 1 / distance.clamp_min(torch.finfo(torch.float64).tiny)
        )
        if not bool(weight.any()):
            return y  # all points are one
        pull = difference.mul_(weight[:, None]).sum(0)
        step = pull / weight.sum()
        # points that coincide with y hold it back; they are the median once they outweigh the pull
        hold = (
            coincident.sum() / pull.norm().clamp_min(torch.finfo(torch.float64).tiny)
        ).clamp_max(1.0)
        y = y + (1 - hold) * step
        if float(((1 - hold) * step).norm()) <= tolerance * float(scale):
            break
    return y
