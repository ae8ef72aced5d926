"""A step's losses and gradients without autograd, on the CPU.

Beyond the encoder's product the cost is that of the entries that fire, where these are few
(`layouts`). It computes what `reference` does, and is tested against it.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders import Weights, decoder_norm
from sae_repro.autoencoders.prefixes import prefix_fraction
from sae_repro.numerics.products import multiply
from sae_repro.params import Cell
from sae_repro.training.steps.activation import ACTIVATIONS, Small, where_positive
from sae_repro.training.steps.auxiliary import revived
from sae_repro.training.steps.codes import DenseCode, SparseCode, Taken
from sae_repro.training.steps.gradients import Gradients
from sae_repro.training.steps.layouts import Few, Layout, Residual, laid_out
from sae_repro.training.steps.slopes import penalised
from sae_repro.training.steps.workspace import Workspace


@dataclass
class _Batch:
    """A batch on its way: what was encoded, and the terms of its loss."""

    x_nd: Tensor
    target_nd: Tensor
    """x − b_dec."""
    seen_nd: Tensor
    """What the encoder sees."""
    lengths: list[int]
    layout: Layout
    u: Tensor
    z: Tensor
    dead: Tensor | None
    """The latents that auxk revives, and their pre-activations [N, n]."""
    u_dead: Tensor | None
    terms: dict[str, Tensor | float] = field(default_factory=dict)


class ByHand:
    """The steps of one cell; what it keeps between them changes no result."""

    def __init__(self, cell: Cell, weights: Weights, *, epsilon: float) -> None:
        self._cell, self._weights = cell, weights
        self._w_enc, self._b_enc = weights.W_enc.detach(), weights.b_enc.detach()
        self._w_dec, self._b_dec = weights.W_dec.detach(), weights.b_dec.detach()
        self._activation = ACTIVATIONS[cell.activation](cell, weights, epsilon)
        self._workspace = Workspace()

    @torch.no_grad()
    def take(
        self, x_nd: Tensor, *, lengths: list[int], lambda_: float | Tensor, dead_k: Tensor | None
    ) -> Taken:
        """The step on a batch x [N, D]; arguments as of `autoencoders.training_losses`."""
        cell, w_dec = self._cell, self._w_dec
        batch = self._encoded(x_nd, lengths, dead_k)
        layout, scale = batch.layout, 2 / self._per(batch)
        residual = layout.residual(batch.z, w_dec, batch.target_nd, "residual")
        batch.terms["reconstruction"] = residual.squares / self._per(batch)
        du, small, norm_slope_k = self._back(batch, residual, float(lambda_))
        du_k = layout.sum_k(du) if cell.activation_row.gated else small["b_enc"].clone()
        gradients = Gradients(
            small,
            encoder=layout.outer(du, batch.seen_nd, 1.0, "encoder"),
            decoder=layout.outer(batch.z, residual, scale, "decoder"),
            w_dec=w_dec,
            norm_slope_k=norm_slope_k,
        )
        if batch.dead is not None:
            self._revive(batch, residual, gradients, du_k)
        small["b_dec"] = residual.sum_d().mul_(scale)
        if cell.apply_b_dec_to_input:
            # numpy's: torch would take MKL's
            small["b_dec"] -= torch.from_numpy(np.matmul(du_k.numpy(), self._w_enc.T.numpy()))
        code = (
            SparseCode(layout.col, batch.z, len(x_nd), self._weights.d_sae)
            if isinstance(layout, Few)
            else DenseCode(batch.z)
        )
        loss = sum(batch.terms.values())
        return Taken(loss, batch.terms, lambda: residual.full, code, gradients)

    def _encoded(self, x_nd: Tensor, lengths: list[int], dead_k: Tensor | None) -> _Batch:
        weights = self._weights
        target_nd = x_nd - self._b_dec
        seen_nd = target_nd if self._cell.apply_b_dec_to_input else x_nd
        u_nk = self._workspace.empty("u", len(x_nd), weights.d_sae, like=x_nd)
        multiply(seen_nd.numpy(), self._w_enc.numpy(), u_nk.numpy())
        u_nk.add_(self._b_enc)
        dead, u_dead = None, None
        if dead_k is not None and bool(dead_k.any()):
            dead = dead_k.nonzero().flatten()
            u_dead = u_nk[:, dead]  # now: a code may take the place of u
        found = self._activation.entries(u_nk)
        layout, u = laid_out(u_nk, found, lengths, self._workspace, "kept")
        z = self._activation.z(layout, u)
        return _Batch(x_nd, target_nd, seen_nd, lengths, layout, u, z, dead, u_dead)

    def _per(self, batch: _Batch) -> int:
        """By what squared errors are divided."""
        x_nd = batch.x_nd
        mean = self._cell.reconstruction == "mean"
        return (x_nd.numel() if mean else len(x_nd)) * len(batch.lengths)

    def _back(
        self, batch: _Batch, residual: Residual, lambda_: float
    ) -> tuple[Tensor, Small, Tensor | None]:
        """(∂/∂u at the entries, small gradients, ∂/∂‖d‖ / ‖d‖ [K] if any)."""
        layout, w_dec, per = batch.layout, self._w_dec, self._per(batch)
        dz = layout.back(residual, w_dec, 2 / per, "residual")
        if not self._cell.activation_row.gated:
            fires_slope_k, norm_slope_k = self._penalise(batch, batch.z, dz, lambda_)
            du, small = self._activation.back(layout, batch.u, batch.z, dz, fires_slope_k)
            return du, {"b_enc": layout.sum_k(du), **small}, norm_slope_k
        # the gate learns from the penalty, and from what it would reconstruct by itself
        gate = torch.clamp_min(batch.u, 0.0, out=layout.scratch("gate", batch.u))
        missed = layout.residual(gate, w_dec, batch.target_nd, "missed")
        dgate = layout.back(missed, w_dec, 2 / per, "missed")
        _, norm_slope_k = self._penalise(batch, gate, dgate, lambda_)
        batch.terms["gate"] = missed.squares / per
        where_positive(dgate, gate, out=dgate)
        da, small = self._activation.back(layout, batch.u, batch.z, dz, 0.0)
        return da.add_(dgate), {"b_enc": layout.sum_k(dgate), **small}, norm_slope_k

    def _penalise(
        self, batch: _Batch, z: Tensor, dz: Tensor, lambda_: float
    ) -> tuple[Tensor | float, Tensor | None]:
        """Take the penalty of `z` into the terms and into `dz`.

        What dz doesn't hold: the slope in 1[u > θ] of each latent, and ∂/∂‖d‖ / ‖d‖.
        """
        cell, n, d_sae = self._cell, len(batch.x_nd), self._weights.d_sae
        if cell.penalty == "none":
            return 0.0, None
        share, layout = lambda_ / n, batch.layout
        several = len(batch.lengths) > 1
        fraction_k = prefix_fraction(batch.lengths, z.new_empty(0, d_sae)) if several else None
        if cell.penalty_row.counts:
            fired_k = layout.sum_k(
                torch.sign(z, out=layout.scratch("near", z))
            )  # z = u > θ ≥ 0 where it fires
            if cell.penalty_row.needs_target_l0:
                assert cell.target_l0 is not None
                excess = float(fired_k.sum()) / n / cell.target_l0 - 1
                batch.terms["penalty"] = lambda_ * excess**2
                return 2 * share * excess / cell.target_l0, None
            weighed_k = fired_k if fraction_k is None else fired_k * fraction_k
            batch.terms["penalty"] = share * float(weighed_k.sum())
            return share if fraction_k is None else share * fraction_k, None
        norm_k = None if cell.penalty == "l1" else decoder_norm(cell, self._weights)
        value, slope, norm_slope_k = penalised(
            cell.penalty, layout, z, norm_k=norm_k, fraction_k=fraction_k
        )
        batch.terms["penalty"] = share * value
        dz.add_(slope, alpha=share) if isinstance(slope, Tensor) else dz.add_(slope * share)
        if norm_slope_k is None or norm_k is None:
            return 0.0, None
        return 0.0, norm_slope_k.mul_(share / norm_k.clamp_min(torch.finfo(norm_k.dtype).tiny))

    def _revive(self, batch: _Batch, residual: Residual, into: Gradients, du_k: Tensor) -> None:
        """Take auxk into the terms and gradients, and into Σ ∂u [K]."""
        assert batch.dead is not None and batch.u_dead is not None
        found = revived(
            self._weights,
            batch.x_nd,
            batch.seen_nd,
            batch.u_dead,
            batch.dead,
            residual.left_nd,
            coefficient=self._cell.auxk_coefficient,
            mean=self._cell.reconstruction == "mean",
            workspace=self._workspace,
        )
        batch.terms["auxk"] = 0.0
        if found is None:
            return
        batch.terms["auxk"], into.revived, db = found
        into.small["b_enc"].index_add_(0, batch.dead, db)
        du_k.index_add_(0, batch.dead, db)
