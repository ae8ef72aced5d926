"""Data-parallel training: each process computes some micro-batches of every step.

A batch of N tokens is P micro-batches of N / P. The gradient of each is computed by the trainer's
own step, and the P gradients, of means over as many tokens, are summed by a tree and divided by P.
Every process then holds the gradient of the batch and takes the same step of Adam, so that all hold
the same weights and moments throughout.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders import Weights
from sae_repro.errors import StudyError
from sae_repro.parallel.ranks import ALONE, Ranks, TreeSum, own_parts
from sae_repro.parallel.whole import WholeCode
from sae_repro.params import Cell, Train
from sae_repro.readers.shards import ActivationStore
from sae_repro.training import Journal, Trainer
from sae_repro.training.steps import Gradients, Step, Taken

Named = dict[str, Tensor]
ROWS = ("W_enc", "W_dec")
"""Weights whose gradients are summed as rows [K, D] by latent."""


class MicroBatches:
    """The steps of a cell whose batch is cut; `of_part` computes those of one micro-batch."""

    def __init__(self, cell: Cell, weights: Weights, of_part: Step, ranks: Ranks) -> None:
        self._cell, self._weights, self._of_part, self._ranks = cell, weights, of_part, ranks
        self._own = own_parts(cell.micro_batches, ranks)
        self.gradients: Named = {}
        """Of the last step's mean loss, W_encᵀ and W_dec as [K, D]."""

    def take(
        self, x_nd: Tensor, *, lengths: list[int], lambda_: float | Tensor, dead_k: Tensor | None
    ) -> Taken:
        """The step on a batch x [N, D], of which every process is given the whole."""
        parts, ranks = self._cell.micro_batches, self._ranks
        if len(x_nd) % parts:
            raise StudyError(f"micro_batches = {parts}: must divide train.batch_size = {len(x_nd)}")
        size = len(x_nd) // parts
        trees: dict[str, TreeSum] = {}
        records, names, codes = [], [], []
        for part in self._own:
            rows_nd = x_nd[part * size : (part + 1) * size]
            taken = self._of_part.take(rows_nd, lengths=lengths, lambda_=lambda_, dead_k=dead_k)
            for name, gradient in self._gradients_of(taken).items():
                trees.setdefault(name, TreeSum()).add(gradient)
            names, code = list(taken.terms), taken.code
            values = (*taken.terms.values(), taken.error(), code.l0)
            records.append(_record(values, x_nd.device))
            codes.append((code.fired_k(), code.square_k() if self._ordered else None))
        self.gradients = {
            name: ranks.sum([tree.total()]).div_(parts) for name, tree in trees.items()
        }
        *terms, error, l0 = torch.stack(ranks.gather(records)).sum(0).tolist()
        fired = ranks.gather([torch.stack([f for f, _ in codes]).any(0).to(torch.uint8)])
        square = [square_k for _, square_k in codes if square_k is not None]
        whole = WholeCode(
            l0=l0 / parts,
            fires_k=torch.stack(fired).any(0).bool(),
            squares_k=ranks.sum(square).div_(parts) if square else None,
        )
        means = {name: term / parts for name, term in zip(names, terms, strict=True)}
        return Taken(sum(means.values()), dict(means), lambda: error, whole)

    @property
    def _ordered(self) -> bool:
        return self._cell.order == "contribution"

    def _gradients_of(self, taken: Taken) -> Named:
        """The gradients of one micro-batch, in memory of their own, in the order of the weights."""
        named = self._weights.named()
        if taken.gradients is None:
            assert isinstance(taken.loss, Tensor)
            found = dict(
                zip(named, torch.autograd.grad(taken.loss, list(named.values())), strict=True)
            )
            found["W_enc"] = found["W_enc"].T
            return {name: gradient.contiguous() for name, gradient in found.items()}
        rows = dict(zip(ROWS, taken.gradients.rows(0, self._weights.d_sae), strict=True))
        return {
            name: torch.from_numpy(np.array(rows[name] if name in rows else small[name]))
            for small in (taken.gradients.small,)
            for name in named
        }

    def as_gradients(self) -> Gradients:
        """The last step's, as the optimiser takes those by hand."""
        arrays = {name: gradient.numpy() for name, gradient in self.gradients.items()}
        w_enc, w_dec = arrays.pop("W_enc"), arrays.pop("W_dec")
        return Gradients(
            arrays,
            encoder=lambda a, b: w_enc[a:b],
            decoder=lambda a, b: w_dec[a:b],
            w_dec=self._weights.W_dec.detach().numpy(),
        )


def _record(values: Iterable[Tensor | float], device: torch.device) -> Tensor:
    """Numbers of one micro-batch, fp64."""
    return torch.stack(
        [torch.as_tensor(value, dtype=torch.float64, device=device).detach() for value in values]
    )


class DataParallelTrainer(Trainer):
    """Trains a cell in micro-batches; the first rank writes the checkpoint, and all resume it."""

    def __init__(
        self,
        cell: Cell,
        settings: Train,
        store: ActivationStore,
        hook: str,
        *,
        seed: int,
        checkpoint: Path,
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        super().__init__(cell, settings, store, hook, seed=seed, checkpoint=checkpoint)

    def _begin(self, d_in: int, sample: Tensor, rng: np.random.Generator) -> None:
        super()._begin(d_in, sample, rng)
        self.by_hand = self.device.type == "cpu" and self.settings.precision == "float32"
        self.in_parts = MicroBatches(self.cell, self.weights, self.step_of_cell, self.ranks)
        self.step_of_cell = self.in_parts

    def _update(self, taken: Taken, lr: float) -> None:
        if self.by_hand:
            self.optimiser.apply(self.in_parts.as_gradients(), lr)
            return
        for name, tensor in self.weights.named().items():
            gradient = self.in_parts.gradients[name]
            tensor.grad = gradient.T if name == "W_enc" else gradient
        self.optimiser.update(lr)

    def _save(self, done: int, journal: Journal) -> None:
        self._check_agreement(f"after step {done}")
        if self.ranks.rank == 0:
            super()._save(done, journal)

    def _resumed(self) -> tuple[int, Journal]:
        start, journal = super()._resumed()
        self._check_agreement(f"at the start, before step {start}")
        return start, journal

    def _check_agreement(self, when: str) -> None:
        """StudyError where the ranks' weights or moments are not the same."""
        if self.ranks.number == 1:
            return
        sha256 = hashlib.sha256()
        for tensor in self._state().values():
            sha256.update(
                tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            )
        own = torch.frombuffer(bytearray(sha256.digest()), dtype=torch.uint8).to(self.device)
        hashes = self.ranks.gather([own])
        others = [rank for rank, other in enumerate(hashes) if not torch.equal(other, hashes[0])]
        if others:
            raise StudyError(
                f"{when}: rank {', '.join(map(str, others))} holds other weights than rank 0: give "
                "all ranks the same code, libraries, kind of processor, activations and folder of "
                "checkpoints"
            )
