"""A step's losses and gradients without autograd, on the CPU.

Beyond the encoder's product the cost is that of the entries that fire, where these are few
(`layouts`). It computes what `reference` does, and is tested against it.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.autoencoders import Weights, decoder_norm
from sae_repro.autoencoders.prefixes import prefix_weights
from sae_repro.autoencoders.selection import Indices, Mask
from sae_repro.autoencoders.transcoding import sides, skipped
from sae_repro.params import Cell
from sae_repro.training.steps.activation import ACTIVATIONS, Small, where_positive
from sae_repro.training.steps.auxiliary import revived
from sae_repro.training.steps.bags import plus, product, rectified, sum_rows
from sae_repro.training.steps.codes import HostCode, SparseCode, Taken
from sae_repro.training.steps.gradients import Gradients, Rows
from sae_repro.training.steps.layouts import Few, Layout, Residual, laid_out, nested_out
from sae_repro.training.steps.slopes import penalised
from sae_repro.training.steps.workspace import Floats, Workspace


@dataclass
class _Batch:
    """A batch on its way: what was encoded, and the terms of its loss."""

    x_nd: Floats
    """The batch to be reconstructed."""
    target_nd: Floats
    """x − b_dec, less the prediction of a skip connection: what is left to the latents."""
    seen_nd: Floats
    """What the encoder sees."""
    lengths: list[int]
    layout: Layout
    u: Floats
    z: Floats
    dead: npt.NDArray[np.int64] | None
    """The latents that auxk revives, and their pre-activations [N, n]."""
    u_dead: Floats | None
    fires: Mask | None
    """Where z > 0, [N, K], if that is known."""
    per: int
    """By what squared errors are divided."""
    terms: dict[str, Tensor | float] = field(default_factory=dict)
    gate: tuple[Floats, Residual] | None = None
    """max(π, 0) and how it misses the batch, where the decoder learns from that too."""


class ByHand:
    """The steps of one cell; what it keeps between them changes no result."""

    def __init__(self, cell: Cell, weights: Weights, *, epsilon: float) -> None:
        self._cell, self._weights = cell, (weights := weights.detached())
        # numpy: half of what torch's way into small operations takes
        self._w_enc, self._b_enc, self._w_dec, self._b_dec = (
            tensor.numpy()
            for tensor in (weights.W_enc, weights.b_enc, weights.W_dec, weights.b_dec)
        )
        self._activation = ACTIVATIONS[cell.activation](cell, weights, epsilon)
        self._workspace = Workspace()

    def take(
        self, x_nd: Tensor, *, lengths: list[int], lambda_: float | Tensor, dead_k: Tensor | None
    ) -> Taken:
        """The step on a batch x [N, D]; arguments as of `autoencoders.training_losses`."""
        cell, w_dec = self._cell, self._w_dec
        batch = self._encoded(x_nd, lengths, dead_k)
        layout, scale = batch.layout, 2 / batch.per
        residual = layout.residual(batch.z, w_dec, batch.target_nd, "residual")
        batch.terms["reconstruction"] = residual.squares / batch.per
        du, small, norm_slope = self._back(batch, residual, scale, float(lambda_))
        du_k = layout.sum_k(du) if cell.activation_row.gated else small["b_enc"].copy()
        gradients = Gradients(
            small,
            encoder=layout.outer(du, batch.seen_nd, 1.0, "encoder"),
            decoder=self._decoder(batch, residual, scale),
            w_dec=w_dec,
            norm_slope=norm_slope,
        )
        if batch.dead is not None:
            self._revive(batch, residual, gradients, du_k)
        # x̂ − x of all reconstructions that the decoder learns from
        missed_nd = residual.first_nd
        if batch.gate is not None:
            missed_nd = missed_nd + batch.gate[1].first_nd
        small["b_dec"] = sum_rows(missed_nd) * scale
        if cell.skip:
            small["W_skip"] = np.matmul(missed_nd.T, batch.seen_nd) * scale
        if cell.subtracts_b_dec:
            small["b_dec"] -= np.matmul(du_k, self._w_enc.T)
        code = (
            SparseCode(layout.latent, batch.z, len(batch.x_nd), layout.count_k)
            if isinstance(layout, Few)
            else HostCode(torch.from_numpy(batch.z), batch.fires)
        )
        loss = sum(batch.terms.values())
        return Taken(loss, batch.terms, lambda: residual.full, code, gradients)

    def _encoded(self, batch_nd: Tensor, lengths: list[int], dead_k: Tensor | None) -> _Batch:
        cell = self._cell
        seen, target = sides(cell, self._weights, batch_nd)
        x_nd = target.numpy()
        target_nd = x_nd - self._b_dec
        linear_nd = skipped(self._weights, seen)
        if linear_nd is not None:
            target_nd -= linear_nd.numpy()
        seen_nd = target_nd if cell.subtracts_b_dec else seen.numpy()
        u_nk = self._workspace.empty("u", len(x_nd), len(self._w_dec), like=x_nd)
        product(seen_nd, self._w_enc, u_nk)
        plus(u_nk, self._b_enc)
        dead, u_dead = None, None
        if dead_k is not None and bool(dead_k.any()):
            dead = np.flatnonzero(dead_k.numpy())
            u_dead = u_nk.take(dead, axis=1)  # now: a code may take the place of u
        found = self._activation.entries(u_nk)
        layout, u = self._laid_out(u_nk, found, lengths)
        z = self._activation.z(layout, u)
        fires = cast(Mask, found) if self._activation.fires and found.dtype == np.bool_ else None
        per = (x_nd.size if cell.reconstruction == "mean" else len(x_nd)) * len(lengths)
        return _Batch(x_nd, target_nd, seen_nd, lengths, layout, u, z, dead, u_dead, fires, per)

    def _laid_out(
        self, u_nk: Floats, found: Mask | Indices, lengths: list[int]
    ) -> tuple[Layout, Floats]:
        cell = self._cell
        if cell.prefixes_row.by_token:
            norm = decoder_norm(cell, self._weights)
            norm_k = None if norm is None else norm.numpy()
            # activations with k give indices, never a mask
            at = cast(Indices, found)
            return nested_out(cell, u_nk, at, norm_k, lengths, self._workspace)
        weight_m = prefix_weights(cell, u_nk.shape[1]) if len(lengths) > 1 else None
        return laid_out(
            u_nk, found, self._w_dec.shape[1], lengths, self._workspace, "kept", weight_m
        )

    def _decoder(self, batch: _Batch, residual: Residual, scale: float) -> Rows:
        """The gradient of W_dec, beside what revival and norms add."""
        layout = batch.layout
        rows = layout.outer(batch.z, residual, scale, "decoder")
        if batch.gate is None:
            return rows
        more = layout.outer(*batch.gate, scale, "decoder of the gate")

        def both(a: int, b: int) -> Floats:
            found = rows(a, b)
            found += more(a, b)
            return found

        return both

    def _back(
        self, batch: _Batch, residual: Residual, scale: float, lambda_: float
    ) -> tuple[Floats, Small, Floats | None]:
        """(∂/∂u at the entries, small gradients, ∂/∂‖d‖ / ‖d‖ if any)."""
        layout, w_dec = batch.layout, self._w_dec
        dz = layout.back(residual, w_dec, scale, "residual")
        if not self._cell.activation_row.gated:
            fires_slope_k, norm_slope = self._penalise(batch, batch.z, dz, lambda_)
            du, small = self._activation.back(layout, batch.u, batch.z, dz, fires_slope_k)
            return du, {"b_enc": layout.sum_k(du), **small}, norm_slope
        # the gate learns from the penalty, and from what it would reconstruct by itself
        gate = layout.scratch("gate", batch.u)
        np.copyto(gate, batch.u)
        rectified(gate)
        missed = layout.residual(gate, w_dec, batch.target_nd, "missed")
        if self._cell.gated_auxiliary == "trained":
            batch.gate = gate, missed
        dgate = layout.back(missed, w_dec, scale, "missed")
        _, norm_slope = self._penalise(batch, gate, dgate, lambda_)
        batch.terms["gate"] = missed.squares / batch.per
        where_positive(dgate, gate, out=dgate)
        da, small = self._activation.back(layout, batch.u, batch.z, dz, 0.0)
        da += dgate
        return da, {"b_enc": layout.sum_k(dgate), **small}, norm_slope

    def _penalise(
        self, batch: _Batch, z: Floats, dz: Floats, lambda_: float
    ) -> tuple[Floats | float, Floats | None]:
        """Take the penalty of `z` into the terms and into `dz`.

        What dz doesn't hold: the slope in 1[u > θ] of each latent, and ∂/∂‖d‖ / ‖d‖ [K, 1], or
        [K, D] where each hook has a norm of its own.
        """
        cell, n = self._cell, len(batch.x_nd)
        if cell.penalty == "none":
            return 0.0, None
        share, layout = lambda_ / n, batch.layout
        fraction_k = _fraction(cell, batch.lengths, z) if len(batch.lengths) > 1 else None
        if cell.penalty_row.counts:
            # z = u > θ ≥ 0 where it fires
            fired_k = layout.sum_k(np.greater(z, 0, out=layout.scratch("near", z)))
            if cell.penalty_row.needs_target_l0:
                assert cell.target_l0 is not None
                excess = float(fired_k.sum()) / n / cell.target_l0 - 1
                batch.terms["penalty"] = lambda_ * excess**2
                return 2 * share * excess / cell.target_l0, None
            weighed_k = fired_k if fraction_k is None else fired_k * fraction_k
            batch.terms["penalty"] = share * float(weighed_k.sum())
            return share if fraction_k is None else share * fraction_k, None
        weights, summed = self._weights, cell.penalty == "l1_decoder_norm"
        norm = None if cell.penalty == "l1" else decoder_norm(cell, weights)
        if summed and weights.widths:
            norm = weights.norm_over_hooks()
        norm_k = None if norm is None else norm.numpy()
        value, slope, norm_slope_k = penalised(
            cell.penalty, layout, z, norm_k=norm_k, fraction_k=fraction_k
        )
        batch.terms["penalty"] = share * value
        dz += slope * share
        if norm_slope_k is None or norm_k is None:
            return 0.0, None
        tiny = np.finfo(norm_k.dtype).tiny
        if summed and weights.widths:
            slopes = [share / np.maximum(part.norm(dim=1).numpy(), tiny)
                      for part in weights.by_hook(weights.W_dec)]  # fmt: skip
            each = np.stack([norm_slope_k * slope for slope in slopes], axis=1)
            return 0.0, each.repeat(weights.widths, axis=1)
        return 0.0, (norm_slope_k * (share / np.maximum(norm_k, tiny)))[:, None]

    def _revive(self, batch: _Batch, residual: Residual, into: Gradients, du_k: Floats) -> None:
        """Take auxk into the terms and gradients, and into Σ ∂u [K]."""
        assert batch.dead is not None and batch.u_dead is not None
        found = revived(
            self._w_dec.take(batch.dead, axis=0),
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
        into.small["b_enc"][batch.dead] += db
        du_k[batch.dead] += db


def _fraction(cell: Cell, lengths: list[int], like: Floats) -> Floats:
    """`autoencoders.prefixes.prefix_fraction`."""
    m, weight_m = len(lengths), prefix_weights(cell, lengths[-1])
    fraction_m = (
        np.arange(m, 0, -1, dtype=like.dtype) / m
        if weight_m is None
        else (weight_m[::-1].cumsum()[::-1] / m).astype(like.dtype)
    )
    return fraction_m.repeat([b - a for a, b in pairwise([0, *lengths])])
