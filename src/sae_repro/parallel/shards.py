"""One shard of a cell's latents: its weights, and its part of a step.

With the latents cut into S shards, u = (x − b_dec)·W_enc + b_enc is computed shard by shard. What a
shard needs of the others:

- which of its latents fire: of the largest u that each shard has to offer, k per token (TopK) or
  k·N (BatchTopK), the values alone are gathered, and the largest of all are selected exactly; among
  equal values the latents that come first win, as without shards;
- x̂ = Σ_s z_s·W_dec_s + b_dec, summed by the tree;
- Σ_s (Σ_n ∂u_s)·W_encᵀ_s, the encoder's part of b_dec's gradient; λ's term; the gradient's norm.

Everything else is of the shard's own latents. Each shard has a copy of b_dec; all make the same
step.

A step is written as a coroutine, which yields what it has for the others and is sent what they
have, so that several shards of one process go forward side by side.
"""

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders import Weights, selection
from sae_repro.autoencoders.selection import Indices, Mask
from sae_repro.parallel.offers import Offers
from sae_repro.params import Cell
from sae_repro.training.optimiser import Optimiser
from sae_repro.training.steps import Gradients
from sae_repro.training.steps.activation import where_positive
from sae_repro.training.steps.bags import plus, product, rectified, squared, sum_rows
from sae_repro.training.steps.layouts import Residual, laid_out
from sae_repro.training.steps.workspace import Floats, Workspace


@dataclass
class Gather:
    """Asks for this tensor of every shard, in their order."""

    tensor: Tensor


@dataclass
class Sum:
    """Asks for the sum of this tensor over all shards."""

    tensor: Tensor


Exchange = Generator[Gather | Sum, "list[Tensor] | Tensor", "ShardStep"]


@dataclass
class ShardStep:
    """What one shard knows at the end of a step's gradients."""

    gradients: Gradients
    terms: dict[str, float]
    """Of the whole loss."""
    l0: float
    """Of the whole code."""
    fired: list[Tensor]
    """Whether latents fired, of every shard."""
    least: float
    """The smallest positive z of the whole code."""


@dataclass
class Shard:
    """Some neighbouring latents of a cell, and all that training keeps of them."""

    cell: Cell
    weights: Weights
    number: int
    """From 0: the first one counts what all shards have alike."""
    optimiser: Optimiser = field(init=False)
    _workspace: Workspace = field(default_factory=Workspace)

    def __post_init__(self) -> None:
        self.optimiser = Optimiser(self.cell, self.weights)
        named = {name: tensor.detach() for name, tensor in self.weights.named().items()}
        self._w_enc, self._b_enc = named["W_enc"].numpy(), named["b_enc"].numpy()
        self._w_dec, self._b_dec = named["W_dec"].numpy(), named["b_dec"].numpy()

    def step(self, x_nd: Tensor, lambda_: float) -> Exchange:
        """Gradients of a step on a batch x [N, D], which every shard is given whole."""
        x = x_nd.numpy()
        n, cell, w_dec = len(x), self.cell, self._w_dec
        per = x.size if cell.reconstruction == "mean" else n
        target_nd = x - self._b_dec
        seen_nd = target_nd if cell.subtracts_b_dec else x
        u_nk = self._workspace.empty("u", n, len(w_dec), like=x)
        product(seen_nd, self._w_enc, u_nk)
        plus(u_nk, self._b_enc)
        if cell.k is None:
            found: Mask | Indices = selection.above(u_nk, 0.0)
        else:
            offers = self._offers(u_nk)
            gathered = yield Gather(torch.from_numpy(offers.values))
            assert isinstance(gathered, list)
            rows = cell.k if cell.activation == "topk" else cell.k * n
            found = offers.selected([values.numpy() for values in gathered], self.number, rows)
        layout, u = laid_out(u_nk, found, w_dec.shape[1], [len(w_dec)], self._workspace, "kept")
        z = rectified(u)
        nothing_nd = np.zeros_like(target_nd)
        share = layout.residual(z, w_dec, nothing_nd, "residual").left_nd
        x_hat = yield Sum(torch.from_numpy(share))
        assert isinstance(x_hat, Tensor)
        left_nd = x_hat.numpy() - target_nd
        squares = squared(left_nd)
        residual = Residual(squares, squares, left_nd, left_nd, left_nd[None])
        dz = layout.back(residual, w_dec, 2 / per, "residual")
        if cell.penalty == "l1":
            dz += lambda_ / n
        du = where_positive(dz, z, out=dz)
        du_k = layout.sum_k(du)
        db_d = np.matmul(du_k, self._w_enc.T)
        fires = z > 0
        of_z = (z.sum(dtype=np.float64), float(np.count_nonzero(fires)))
        totals = yield Gather(torch.tensor((*of_z, z[fires].min(initial=np.inf))).double())
        db = yield Sum(torch.from_numpy(db_d))
        fired = yield Gather(torch.from_numpy((layout.sum_k(z) > 0).astype(np.uint8)))
        assert isinstance(totals, list) and isinstance(db, Tensor) and isinstance(fired, list)
        z_sum, firings = torch.stack(totals)[:, :2].sum(0).tolist()
        small = {"b_enc": du_k, "b_dec": sum_rows(left_nd) * (2 / per)}
        if cell.subtracts_b_dec:
            small["b_dec"] -= db.numpy()
        terms = {"reconstruction": squares / per}
        if cell.penalty == "l1":
            terms["penalty"] = lambda_ * z_sum / n
        gradients = Gradients(
            small,
            encoder=layout.outer(du, seen_nd, 1.0, "encoder"),
            decoder=layout.outer(z, residual, 2 / per, "decoder"),
            w_dec=w_dec,
        )
        least = float(torch.stack(totals)[:, 2].min())
        return ShardStep(gradients, terms, firings / n, fired, least)

    def _offers(self, u_nk: Floats) -> Offers:
        assert self.cell.k is not None
        if self.cell.activation == "topk":
            return Offers.of_tokens(u_nk, min(self.cell.k, u_nk.shape[1]))
        return Offers.of_batch(u_nk, min(self.cell.k * len(u_nk), u_nk.size))
