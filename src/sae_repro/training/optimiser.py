"""Adam as in the papers, with gradient clipping and decoder rows held at norm one."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders import LATENT_AXIS, Weights
from sae_repro.params import Cell
from sae_repro.training.steps import Gradients
from sae_repro.training.steps.bags import squared
from sae_repro.training.steps.workspace import Floats

MOMENTS = ("exp_avg", "exp_avg_sq")
BETAS = (0.9, 0.999)
BLOCK_BYTES = 1 << 20
"""Of a block of rows of one matrix: smaller ones fit the cache, but cost more calls than it saves,
and a gradient of one block is not copied."""
CLIP_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_
FROZEN = {"decoder": "W_dec", "encoder": "W_enc"}
"""By a cell's `frozen`, the weight that no step changes; its gradient is not clipped with the
others'."""
SOFT_COSINE = 0.8  # of a decoder row with its start, at least (2602.14111, figure 1)


Adams = tuple[list[Tensor], list[Tensor], list[Tensor]]
"""Weights, their m and their v."""


@dataclass
class _Block:
    """Latents first … last − 1: their rows of W_encᵀ and W_dec."""

    first: int
    last: int
    adams: Adams
    """Of those of the two that are not frozen; the first block's begin with all other weights."""
    rows: Floats
    """The weights of W_dec."""


@dataclass
class Pending:
    """Gradients of a step that wait for the norm they are clipped by."""

    blocks: list[list[Floats]]
    """In the order of each block's `adams`."""
    square: float
    """Their squared norm."""


class Optimiser:
    """One step of Adam on an SAE's weights; `state` and `restore` hold all that Adam remembers."""

    def __init__(self, cell: Cell, weights: Weights) -> None:
        self._cell, self._weights = cell, weights
        if not weights.W_enc.T.is_contiguous():
            weights.W_enc = weights.W_enc.detach().T.contiguous().T
        self._named = weights.named()
        for tensor in self._named.values():
            tensor.requires_grad_(True)
        on_cpu = weights.W_dec.device.type == "cpu"
        # not torch.optim: making one of its optimisers imports torch's compiler, for a second
        # all equal, but torch's Adam asks for one per tensor
        self._step_counts = torch.zeros(len(self._named), device=weights.W_dec.device)
        self._steps = list(self._step_counts.unbind())
        self._counts: Floats = self._step_counts.numpy() if on_cpu else np.empty(0, np.float32)
        self._state = {
            name: {
                "step": step,
                **{moment: torch.zeros_like(tensor.detach()) for moment in MOMENTS},
            }
            for step, (name, tensor) in zip(self._steps, self._named.items(), strict=True)
        }
        self._whole = {
            name: (tensor.detach(), *self.moments(name)) for name, tensor in self._named.items()
        }
        self._kept = FROZEN.get(cell.frozen or "")
        self._small = [name for name in self._whole if name not in FROZEN.values()]
        self._rows = [name for name in ("W_enc", "W_dec") if name != self._kept]
        self._blocks = self._in_blocks()
        # a resumed training begins at the same weights before it takes up its state
        soft = cell.frozen == "soft_decoder"
        self._start = _unit_rows(weights.W_dec.detach()) if soft else None

    def _in_blocks(self) -> list[_Block]:
        w_dec = self._whole["W_dec"][0]
        d_sae, d_in = w_dec.shape
        rows = max(1, BLOCK_BYTES // (d_in * w_dec.element_size()))
        by_latent = {
            name: [tensor.T if name == "W_enc" else tensor for tensor in self._whole[name]]
            for name in self._rows
        }

        def block(first: int) -> _Block:
            part = slice(first, first + rows)
            of = [] if first else [self._whole[name] for name in self._small]
            of += [(w[part], m[part], v[part]) for w, m, v in by_latent.values()]
            return _Block(first, min(first + rows, d_sae), _listed(of), w_dec[part].numpy())

        on_cpu = w_dec.device.type == "cpu"
        return [block(first) for first in range(0, d_sae, rows)] if on_cpu else []

    def step(self, loss: Tensor, lr: float) -> None:
        """Backward, the decoder's radial gradient removed, clip, Adam, rows to norm one, θ ≥ 0."""
        for tensor in self._named.values():
            tensor.grad = None
        loss.backward()
        self.update(lr)

    def update(self, lr: float) -> None:
        """As `step`, on gradients that are there already."""
        weights = self._weights
        trained = {name: tensor for name, tensor in self._named.items() if name != self._kept}
        if self._cell.decoder == "unit_norm":
            remove_radial(weights.W_dec)
        if self._cell.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(list(trained.values()), self._cell.grad_clip)
        with torch.no_grad():
            gradients = [tensor.grad for tensor in trained.values() if tensor.grad is not None]
            assert len(gradients) == len(trained)
            self._step_counts.add_(1)
            self._update(_listed([self._whole[name] for name in trained]), gradients, None, lr)
            self._constrain(weights.W_dec, slice(None))
            if weights.threshold is not None:
                weights.threshold.clamp_min_(0.0)

    def apply(self, gradients: Gradients, lr: float) -> None:
        """As `step`, from gradients by hand, a block of latents at a time.

        A block is read once for its gradient, without radial part, and its norm, and once for Adam,
        with the clipping folded in, and rows of norm one.
        """
        pending = self.pending(gradients)
        self.finish(pending, pending.square, lr)

    def pending(self, gradients: Gradients, *, counted_elsewhere: Collection[str] = ()) -> Pending:
        """A step's gradients, without radial parts, ready for `finish`.

        `counted_elsewhere` are weights whose gradients are left out of the norm.
        """
        small = [gradients.small[name] for name in self._small]
        square = sum(
            squared(gradient)
            for name, gradient in zip(self._small, small, strict=True)
            if name not in counted_elsewhere
        )
        blocks: list[list[Floats]] = []
        for block in self._blocks:
            encoder, decoder = gradients.rows(block.first, block.last)
            if self._cell.decoder == "unit_norm":
                radial = torch.from_numpy(np.vecdot(decoder, block.rows))[:, None]
                torch.from_numpy(decoder).addcmul_(radial, torch.from_numpy(block.rows), value=-1)
            rows = {"W_enc": encoder, "W_dec": decoder}
            trained = [rows[name] for name in self._rows]
            square += sum(map(squared, trained))
            blocks.append(trained if blocks else small + trained)
        return Pending(blocks, square)

    def finish(self, pending: Pending, square: float, lr: float) -> None:
        """Clip by `square`, the squared norm of all gradients; Adam; rows to norm one; θ ≥ 0."""
        divisor = self._divisor(square)
        self._counts += 1
        for block, gradients in zip(self._blocks, pending.blocks, strict=True):
            self._update(block.adams, [*map(torch.from_numpy, gradients)], divisor, lr)
            self._constrain_rows(block)
        if "threshold" in self._whole:
            self._whole["threshold"][0].clamp_min_(0.0)

    def _constrain_rows(self, block: _Block) -> None:
        """`_constrain` of one block's rows of W_dec."""
        if self._start is None and self._kept != "W_dec" and self._cell.decoder == "unit_norm":
            norm = np.sqrt(np.vecdot(block.rows, block.rows))
            block.rows /= np.maximum(norm, np.finfo(norm.dtype).tiny, out=norm)[:, None]
        else:
            self._constrain(torch.from_numpy(block.rows), slice(block.first, block.last))

    def _constrain(self, rows: Tensor, which: slice) -> None:
        """Keep `rows`, those of W_dec at `which`, near their start and of norm one, if need be."""
        if self._kept == "W_dec":
            return
        if self._start is not None:
            _turn_back(rows, self._start[which])
        if self._cell.decoder == "unit_norm":
            _normalise(rows)

    def _divisor(self, square: float) -> Tensor | None:
        """By what gradients of this squared norm are divided to be clipped; None: by nothing."""
        if self._cell.grad_clip is None:
            return None
        by = (math.sqrt(square) + CLIP_EPSILON) / self._cell.grad_clip
        return None if by <= 1 else torch.tensor(by, dtype=torch.float32)

    def _update(
        self, of: Adams, gradients: list[Tensor], divisor: Tensor | None, lr: float
    ) -> None:
        """Adam on weights with their gradients, which are divided in passing."""
        weights, mean, square = of
        torch._fused_adam_(
            weights,
            gradients,
            mean,
            square,
            [],
            self._steps[: len(weights)],
            lr=lr,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=self._cell.adam_eps,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
        )

    def forget(self) -> None:
        """Back to Adam's first step, for all weights."""
        for state in self._state.values():
            for value in state.values():
                value.zero_()

    def permute(self, order_k: Tensor) -> None:
        """Latents, with their moments, in the order `order_k` [K]; in place."""
        with torch.no_grad():
            for name, axis in LATENT_AXIS.items():
                if name in self._named:
                    for tensor in (self._named[name], *self.moments(name)):
                        tensor.copy_(tensor.index_select(axis, order_k))

    def moments(self, name: str) -> tuple[Tensor, Tensor]:
        """Adam's m and v of the weight `name`; written to in place by a resampling."""
        state = self._state[name]
        return state[MOMENTS[0]], state[MOMENTS[1]]

    def state(self) -> dict[str, Tensor]:
        """Everything Adam remembers, by name."""
        return {
            f"adam.{name}.{key}": value
            for name, state in self._state.items()
            for key, value in state.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        for name, remembered in self._state.items():
            for key, value in remembered.items():
                value.copy_(state[f"adam.{name}.{key}"])


def _listed(of: list[tuple[Tensor, Tensor, Tensor]]) -> Adams:
    weights, means, squares = zip(*of, strict=True)
    return [*weights], [*means], [*squares]


def remove_radial(rows: Tensor) -> None:
    """Take the part along each (unit) row out of its gradient, in place.

    What is left is tangent to the sphere on which the rows are kept, so that Adam's moments hold
    no component that the normalisation would undo.
    """
    assert rows.grad is not None
    with torch.no_grad():
        _make_tangent(rows.grad, rows)


def _make_tangent(gradient: Tensor, rows: Tensor) -> None:
    radial = (gradient * rows).sum(dim=1, keepdim=True)
    gradient.addcmul_(radial, rows, value=-1)


def _normalise(rows: Tensor) -> None:
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    rows.div_(norm.clamp_min_(torch.finfo(norm.dtype).tiny))


def _unit_rows(rows: Tensor) -> Tensor:
    unit = rows.clone()
    _normalise(unit)
    return unit


def _turn_back(rows: Tensor, start: Tensor) -> None:
    """Turn rows that have left the cone around `start`, of norm one, back to its rim; in place.

    In the plane of the row and its start, at the row's own norm.
    """
    along = (rows * start).sum(dim=1, keepdim=True)
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    across = _unit_rows(rows - along * start)
    rim = norm * (SOFT_COSINE * start + math.sqrt(1 - SOFT_COSINE**2) * across)
    rows.copy_(torch.where(along < SOFT_COSINE * norm, rim, rows))
