"""The activations by hand, on either layout: which entries there are, z from u, and ∂u from ∂z.

`ACTIVATIONS` has the formulas of `autoencoders.activations.TRAINING` under the same names.
"""

from typing import Protocol

import torch
from torch import Tensor

from sae_repro.autoencoders import Weights, decoder_norm, selection
from sae_repro.autoencoders.selection import Indices, Mask
from sae_repro.params import Cell
from sae_repro.training.steps.layouts import Layout

Small = dict[str, Tensor]
"""Gradients of a step's tensors per latent, by the weights' names."""


_threshold_backward = torch.ops.aten.threshold_backward.grad_input


def where_positive(values: Tensor, by: Tensor, *, out: Tensor) -> Tensor:
    """`values` where `by` is positive (or NaN), else 0; a product with a mask is far slower."""
    _threshold_backward(values, by, 0, grad_input=out)
    return out


class Activation(Protocol):
    """One activation of one cell; `u` is π where gated."""

    def __init__(self, cell: Cell, weights: Weights, epsilon: float) -> None: ...

    def entries(self, u_nk: Tensor) -> Mask | Indices:
        """A mask [N, K], or the rising flat indices, of entries outside of which all is 0."""

    def z(self, layout: Layout, u: Tensor) -> Tensor:
        """The code at the entries."""

    def back(
        self, layout: Layout, u: Tensor, z: Tensor, dz: Tensor, fires_slope_k: Tensor | float
    ) -> tuple[Tensor, Small]:
        """(∂u, other gradients) from ∂z, which it may overwrite.

        `fires_slope_k` is the slope of the loss in each 1[u > θ], of penalties that count.
        """


class Rectified:
    """z = max(u, 0) at the entries."""

    def __init__(self, cell: Cell, weights: Weights, epsilon: float) -> None:
        self._cell, self._weights = cell, weights

    def entries(self, u_nk: Tensor) -> Mask | Indices:
        """Where u is positive."""
        return selection.above(u_nk, 0.0)

    def z(self, layout: Layout, u: Tensor) -> Tensor:
        """max(u, 0), in the place of u."""
        return torch.relu_(u)

    def back(
        self, layout: Layout, u: Tensor, z: Tensor, dz: Tensor, fires_slope_k: Tensor | float
    ) -> tuple[Tensor, Small]:
        """∂z where z > 0."""
        return where_positive(dz, z, out=dz), {}

    def _score(self, u_nk: Tensor) -> Tensor:
        norm_k = decoder_norm(self._cell, self._weights)
        return u_nk if norm_k is None else u_nk * norm_k


class TopK(Rectified):
    """At the k largest u·‖d‖ of each token."""

    def entries(self, u_nk: Tensor) -> Mask | Indices:
        """The selected ones that are positive."""
        assert self._cell.k is not None
        return selection.top_k(self._score(u_nk), self._cell.k)


class BatchTopK(Rectified):
    """At the k·N largest u·‖d‖ of the batch."""

    def __init__(self, cell: Cell, weights: Weights, epsilon: float) -> None:
        super().__init__(cell, weights, epsilon)
        self._select = selection.BatchTopK()

    def entries(self, u_nk: Tensor) -> Mask | Indices:
        """The selected ones that are positive."""
        assert self._cell.k is not None
        return self._select(self._score(u_nk), min(self._cell.k * len(u_nk), u_nk.numel()))


class JumpReLU:
    """z = u·1[u > θ]; θ learns from what lies within ε/2 of it."""

    def __init__(self, cell: Cell, weights: Weights, epsilon: float) -> None:
        assert weights.threshold is not None
        self._threshold, self._epsilon = weights.threshold.detach(), epsilon

    def entries(self, u_nk: Tensor) -> Mask | Indices:
        """What fires, or lies within the kernel; rounding may add a few."""
        return selection.above(u_nk, self._threshold - 0.51 * self._epsilon)

    def z(self, layout: Layout, u: Tensor) -> Tensor:
        """u where it is above θ."""
        over = torch.sub(u, layout.per_latent(self._threshold), out=layout.scratch("over", u))
        return where_positive(u, over, out=layout.scratch("z", u))

    def back(
        self, layout: Layout, u: Tensor, z: Tensor, dz: Tensor, fires_slope_k: Tensor | float
    ) -> tuple[Tensor, Small]:
        """∂z where it fires; ∂θ by the rectangular kernel."""
        threshold_k, epsilon = self._threshold, self._epsilon
        over = torch.sub(u, layout.per_latent(threshold_k), out=layout.scratch("over", u))
        near = torch.abs(over, out=layout.scratch("near", u)).neg_().add_(epsilon / 2)
        window = near.sign_().relu_()
        counted_k = layout.sum_k(window) * fires_slope_k
        slope_k = (threshold_k * layout.sum_k(window.mul_(dz))).add_(counted_k)
        return where_positive(dz, over, out=dz), {"threshold": slope_k.div_(-epsilon)}


class Gated:
    """A magnitude where the gate π is open; π itself learns elsewhere."""

    def __init__(self, cell: Cell, weights: Weights, epsilon: float) -> None:
        self._weights = weights

    def entries(self, u_nk: Tensor) -> Mask | Indices:
        """Where the gate is open."""
        return selection.above(u_nk, 0.0)

    def z(self, layout: Layout, u: Tensor) -> Tensor:
        """1[π > 0]·max(e^r·a + b_mag, 0)."""
        weights = self._weights
        assert weights.r_mag is not None and weights.b_mag is not None
        scale = layout.per_latent(weights.r_mag.detach().exp())
        bias = layout.per_latent(weights.b_mag.detach())
        magnitude = self._a(layout, u, "z").mul_(scale).add_(bias).relu_()
        return where_positive(magnitude, u, out=magnitude)

    def back(
        self, layout: Layout, u: Tensor, z: Tensor, dz: Tensor, fires_slope_k: Tensor | float
    ) -> tuple[Tensor, Small]:
        """∂a by way of the magnitude; none of π."""
        assert self._weights.r_mag is not None
        scale_k = self._weights.r_mag.detach().exp()
        where_positive(dz, z, out=dz)
        small = {
            "b_mag": layout.sum_k(dz),
            "r_mag": layout.sum_k(self._a(layout, u, "near").mul_(dz)) * scale_k,
        }
        return dz.mul_(layout.per_latent(scale_k)), small

    def _a(self, layout: Layout, u: Tensor, name: str) -> Tensor:
        bias = layout.per_latent(self._weights.b_enc.detach())
        return torch.sub(u, bias, out=layout.scratch(name, u))


ACTIVATIONS: dict[str, type[Activation]] = {
    "relu": Rectified,
    "topk": TopK,
    "batchtopk": BatchTopK,
    "jumprelu": JumpReLU,
    "gated": Gated,
}
"""By activation, as in `params.axes`."""
