"""Training with the latents spread over processes: each holds those of its own shards alone.

Per process there are the weights, moments and gradients of K / R latents, and the whole batch. What
is as long as K and kept whole is one number per latent and process: the tokens since it fired.
The first process puts the finished SAE together, for which it needs the memory of its weights.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders import LATENT_AXIS, SAE, Weights, initial_weights
from sae_repro.autoencoders.saved import finished
from sae_repro.parallel.ranks import ALONE, Ranks, own_parts
from sae_repro.parallel.shards import Gather, Shard, ShardStep, Sum
from sae_repro.parallel.whole import WholeCode
from sae_repro.params import Cell, Train
from sae_repro.readers.shards import ActivationStore
from sae_repro.training import Journal, Trainer, finished_sae
from sae_repro.training.steps import Taken


class ShardedTrainer(Trainer):
    """Trains a cell of several `latent_shards`; writes no checkpoints."""

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
        """As without shards, of which only this process's own are kept."""
        cell, parts = self.cell, self.cell.latent_shards
        own = own_parts(parts, self.ranks)
        self.shards = [
            Shard(cell, weights, number)
            for number, weights in enumerate(_drawn(cell, d_in, sample, rng, parts))
            if number in own
        ]
        self.weights = _shapes(self.shards[0].weights, cell.width(d_in))
        self.found: list[ShardStep] = []
        self.step_of_cell = self

    def take(
        self, x_nd: Tensor, *, lengths: list[int], lambda_: float | Tensor, dead_k: Tensor | None
    ) -> Taken:
        """The step on a batch x [N, D]: the shards of this process, side by side."""
        steps = [shard.step(x_nd, float(lambda_)) for shard in self.shards]
        with torch.no_grad():
            asked = [next(step) for step in steps]
            self.found = []
            while asked:
                answer, left, asked = self._exchanged(asked), steps, []
                for step in left:
                    try:
                        asked.append(step.send(answer))
                    except StopIteration as end:
                        self.found.append(end.value)
        one = self.found[0]
        code = WholeCode(one.l0, torch.cat(one.fired).bool(), least=one.least)
        terms: dict[str, Tensor | float] = dict(one.terms)
        error = one.terms["reconstruction"] * (
            x_nd.numel() if self.cell.reconstruction == "mean" else len(x_nd)
        )
        return Taken(sum(one.terms.values()), terms, lambda: error, code)

    def _exchanged(self, asked: list[Gather | Sum]) -> list[Tensor] | Tensor:
        tensors = [one.tensor for one in asked]
        gathers = isinstance(asked[0], Gather)
        return self.ranks.gather(tensors) if gathers else self.ranks.sum(tensors)

    def _update(self, taken: Taken, lr: float) -> None:
        pending = [
            # what all shards have alike counts once
            shard.optimiser.pending(
                one.gradients, counted_elsewhere=("b_dec",) if shard.number else ()
            )
            for shard, one in zip(self.shards, self.found, strict=True)
        ]
        squares = [torch.tensor([one.square], dtype=torch.float64) for one in pending]
        square = self.ranks.sum(squares).item()
        for shard, gradients in zip(self.shards, pending, strict=True):
            shard.optimiser.finish(gradients, square, lr)

    def _save(self, done: int, journal: Journal) -> None:
        """Nothing: a killed cell of shards starts again."""

    def _resumed(self) -> tuple[int, Journal]:
        return 0, Journal()

    def sae(self) -> SAE:
        """The SAE; on all processes but the first only that of their own latents."""
        own = [shard.weights for shard in self.shards]
        if self.ranks.rank and self.ranks.number > 1:
            for weights in own:
                self._sent(weights)
            assert isinstance(self.scale, float)  # a crosscoder is not sharded
            return finished(self.cell, _joined(own), scale=self.scale)
        each = len(own)
        for rank in range(1, self.ranks.number):
            own += [self._received(own[0], rank) for _ in range(each)]
        return finished_sae(self.cell, _joined(own), self.store, self.hook)

    def _thresholds(self, sae: SAE) -> dict[str, float | None]:
        return super()._thresholds(sae) if self.ranks.rank == 0 else {}

    def _sent(self, weights: Weights) -> None:
        for tensor in weights.named().values():
            self.ranks.send(tensor.detach().contiguous(), 0)

    def _received(self, like: Weights, rank: int) -> Weights:
        return Weights(
            **{
                name: self.ranks.receive(tensor.detach(), rank)
                for name, tensor in like.named().items()
            }
        )


def _drawn(
    cell: Cell, d_in: int, sample: Tensor, rng: np.random.Generator, parts: int
) -> Iterator[Weights]:
    """The initial weights of one shard after another, which together are those of the cell."""
    each = cell.model_copy(update={"expansion": cell.expansion / parts})  # exact: powers of two
    first = initial_weights(each, d_in, sample, rng)
    yield first
    for _ in range(parts - 1):
        other = each.model_copy(update={"b_dec_init": "zero"})
        weights = initial_weights(other, d_in, sample, rng)
        yield replace(weights, b_dec=first.b_dec.detach().clone())


def _shapes(like: Weights, d_sae: int) -> Weights:
    """The shapes of the whole cell's weights, without memory."""
    of = {name: list(tensor.shape) for name, tensor in like.named().items()}
    for name, shape in of.items():
        if name in LATENT_AXIS:
            shape[LATENT_AXIS[name]] = d_sae
    return Weights(**{name: torch.empty(shape, device="meta") for name, shape in of.items()})


def _joined(shards: list[Weights]) -> Weights:
    """The weights of all latents of `shards`."""
    named = [weights.named() for weights in shards]
    return Weights(
        **{
            name: torch.cat([of[name].detach() for of in named], LATENT_AXIS[name])
            if name in LATENT_AXIS
            else tensor.detach()
            for name, tensor in named[0].items()
        }
    )
