"""The activations by hand, on either layout: which entries there are, z from u, and ∂u from ∂z.

`ACTIVATIONS` has the formulas of `autoencoders.activations.TRAINING` under the same names.
"""

from typing import Protocol

import numpy as np
import torch

from sae_repro.autoencoders import Weights, decoder_norm, selection
from sae_repro.autoencoders.selection import Indices, Mask
from sae_repro.params import Cell
from sae_repro.training.steps.bags import rectified
from sae_repro.training.steps.layouts import Layout
from sae_repro.training.steps.workspace import Floats

Small = dict[str, Floats]
"""Gradients of a step's tensors per latent, by the weights' names."""


_threshold_backward = torch.ops.aten.threshold_backward.grad_input


def where_positive(values: Floats, by: Floats, *, out: Floats) -> Floats:
    """`values` where `by` is positive (or NaN), else 0; numpy's masks are far slower."""
    _threshold_backward(
        torch.from_numpy(values), torch.from_numpy(by), 0, grad_input=torch.from_numpy(out)
    )
    return out


class Activation(Protocol):
    """One activation of one cell; `u` is π where gated."""

    fires: bool
    """Whether all of a mask's entries fire (or are NaN), and nothing else does."""

    def __init__(self, cell: Cell, weights: Weights, epsilon: float) -> None: ...

    def entries(self, u_nk: Floats) -> Mask | Indices:
        """A mask [N, K], or the rising flat indices, of entries outside of which all is 0."""

    def z(self, layout: Layout, u: Floats) -> Floats:
        """The code at the entries."""

    def back(
        self, layout: Layout, u: Floats, z: Floats, dz: Floats, fires_slope_k: Floats | float
    ) -> tuple[Floats, Small]:
        """(∂u, other gradients) from ∂z, which it may overwrite.

        `fires_slope_k` is the slope of the loss in each 1[u > θ], of penalties that count.
        """


class Rectified:
    """z = max(u, 0) at the entries."""

    fires = True

    def __init__(self, cell: Cell, weights: Weights, epsilon: float) -> None:
        self._cell, self._weights = cell, weights

    def entries(self, u_nk: Floats) -> Mask | Indices:
        """Where u is positive."""
        return selection.above(u_nk, 0.0)

    def z(self, layout: Layout, u: Floats) -> Floats:
        """max(u, 0), in the place of u."""
        return rectified(u)

    def back(
        self, layout: Layout, u: Floats, z: Floats, dz: Floats, fires_slope_k: Floats | float
    ) -> tuple[Floats, Small]:
        """∂z where z > 0."""
        return where_positive(dz, z, out=dz), {}

    def _score(self, u_nk: Floats) -> Floats:
        norm_k = decoder_norm(self._cell, self._weights)
        return u_nk if norm_k is None else u_nk * norm_k.numpy()


class TopK(Rectified):
    """At the k largest u·‖d‖ of each token."""

    def entries(self, u_nk: Floats) -> Mask | Indices:
        """The selected ones that are positive."""
        assert self._cell.k is not None
        return selection.top_k(self._score(u_nk), self._cell.k)


class BatchTopK(Rectified):
    """At the k·N largest u·‖d‖ of the batch."""

    def __init__(self, cell: Cell, weights: Weights, epsilon: float) -> None:
        super().__init__(cell, weights, epsilon)
        self._select = selection.BatchTopK()

    def entries(self, u_nk: Floats) -> Mask | Indices:
        """The selected ones that are positive."""
        assert self._cell.k is not None
        return self._select(self._score(u_nk), min(self._cell.k * len(u_nk), u_nk.size))


class JumpReLU:
    """z = u·1[u > θ]; θ learns from what lies within ε/2 of it."""

    fires = False

    def __init__(self, cell: Cell, weights: Weights, epsilon: float) -> None:
        assert weights.threshold is not None
        self._threshold, self._epsilon = weights.threshold.detach().numpy(), epsilon

    def entries(self, u_nk: Floats) -> Mask | Indices:
        """What fires, or lies within the kernel; rounding may add a few."""
        return selection.above(u_nk, self._threshold - 0.51 * self._epsilon)

    def z(self, layout: Layout, u: Floats) -> Floats:
        """u where it is above θ."""
        over = np.subtract(u, layout.per_latent(self._threshold), out=layout.scratch("over", u))
        return where_positive(u, over, out=layout.scratch("z", u))

    def back(
        self, layout: Layout, u: Floats, z: Floats, dz: Floats, fires_slope_k: Floats | float
    ) -> tuple[Floats, Small]:
        """∂z where it fires; ∂θ by the rectangular kernel."""
        threshold_k, epsilon = self._threshold, self._epsilon
        over = np.subtract(u, layout.per_latent(threshold_k), out=layout.scratch("over", u))
        window = np.abs(over, out=layout.scratch("near", u))
        np.less(window, epsilon / 2, out=window)
        counted_k = layout.sum_k(window) * fires_slope_k
        window *= dz
        slope_k = threshold_k * layout.sum_k(window) + counted_k
        return where_positive(dz, over, out=dz), {"threshold": slope_k / -epsilon}


class Gated:
    """A magnitude where the gate π is open; π itself learns elsewhere."""

    fires = False

    def __init__(self, cell: Cell, weights: Weights, epsilon: float) -> None:
        assert weights.r_mag is not None and weights.b_mag is not None
        self._b_enc = weights.b_enc.detach().numpy()
        self._r_mag, self._b_mag = weights.r_mag.detach().numpy(), weights.b_mag.detach().numpy()

    def entries(self, u_nk: Floats) -> Mask | Indices:
        """Where the gate is open."""
        return selection.above(u_nk, 0.0)

    def z(self, layout: Layout, u: Floats) -> Floats:
        """1[π > 0]·max(e^r·a + b_mag, 0)."""
        magnitude = self._a(layout, u, "z")
        magnitude *= layout.per_latent(self._scale_k())
        magnitude += layout.per_latent(self._b_mag)
        return where_positive(rectified(magnitude), u, out=magnitude)

    def back(
        self, layout: Layout, u: Floats, z: Floats, dz: Floats, fires_slope_k: Floats | float
    ) -> tuple[Floats, Small]:
        """∂a by way of the magnitude; none of π."""
        scale_k = self._scale_k()
        where_positive(dz, z, out=dz)
        a = self._a(layout, u, "near")
        a *= dz
        small = {"b_mag": layout.sum_k(dz), "r_mag": layout.sum_k(a) * scale_k}
        dz *= layout.per_latent(scale_k)
        return dz, small

    def _scale_k(self) -> Floats:
        scale_k: Floats = torch.from_numpy(self._r_mag).exp().numpy()
        return scale_k

    def _a(self, layout: Layout, u: Floats, name: str) -> Floats:
        return np.subtract(u, layout.per_latent(self._b_enc), out=layout.scratch(name, u))


ACTIVATIONS: dict[str, type[Activation]] = {
    "relu": Rectified,
    "topk": TopK,
    "batchtopk": BatchTopK,
    "jumprelu": JumpReLU,
    "gated": Gated,
}
"""By activation, as in `params.axes`."""
