"""One cell from its first step to its last: the only place where weights change.

A step is a function of (weights, Adam's state, batch, step number, named generators). Logging and
checkpoints only read, so that their intervals change no bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_repro.autoencoders import (
    SAE,
    Losses,
    Weights,
    calibrated,
    finished,
    initial_weights,
    prefix_lengths,
    training_losses,
)
from sae_repro.errors import StudyError
from sae_repro.files import digest
from sae_repro.params import Cell, Train
from sae_repro.random import generator
from sae_repro.store import ActivationStore
from sae_repro.train.checkpoint import Journal, load_checkpoint, save_checkpoint
from sae_repro.train.data import Batches
from sae_repro.train.optimiser import Optimiser, learning_rate, penalty_weight
from sae_repro.train.resample import resample

INITIAL_ROWS = 16_384  # inputs whose geometric median b_dec starts from
CALIBRATION_CHUNK = 4096
DEAD_WINDOW = 100_000  # tokens of silence after which a training curve counts a latent as dead


class Diverged(Exception):  # noqa: N818 - says what happened, not that something is in error
    """A cell's loss stopped being a finite number; the message names step, terms, checkpoint."""

    def __init__(self, message: str, journal: Journal) -> None:
        super().__init__(message)
        self.journal = journal


@dataclass(frozen=True)
class Trained:
    """A finished cell: the SAE on raw activations, and what its training said."""

    sae: SAE
    journal: Journal
    steps: int


def cell_id(cell: Cell) -> str:
    """Names a cell's generators: a hash of its choices, the same under every name."""
    return digest(cell.identity())[:16]


class Trainer:
    """Trains one cell; `run` may be killed anywhere and run again with the same folder."""

    def __init__(
        self,
        cell: Cell,
        settings: Train,
        store: ActivationStore,
        hook: str,
        *,
        seed: int,
        checkpoint: Path,
    ) -> None:
        self.cell, self.settings, self.store, self.hook = cell, settings, store, hook
        self.seed, self.id, self.checkpoint = seed, cell_id(cell), checkpoint
        self.device = torch.device(settings.device)
        self.batches = Batches(
            store.activations(hook, "train"),
            settings.batch_size,
            settings.epochs,
            seed=seed,
            cell_id=self.id,
        )
        if not self.batches.steps:
            raise StudyError(
                f"train.batch_size = {settings.batch_size}: {hook} has only "
                f"{store.activations(hook, 'train').rows} training activations"
            )
        d_in = store.d_in(hook)
        self.scale = d_in**0.5 / store.rms(hook) if cell.normalisation == "expected_norm" else 1.0
        sample = self._scaled(self.batches.sample(INITIAL_ROWS, "b_dec"))
        rng = generator(seed, self.id, "weights")
        first = initial_weights(cell, d_in, sample.cpu(), rng)
        self.weights = Weights(**{n: t.to(self.device) for n, t in first.named().items()})
        self.optimiser = Optimiser(cell, self.weights)
        self.silent_k = torch.zeros(self.weights.d_sae, dtype=torch.int64, device=self.device)
        """Tokens since a latent last fired (or was resampled)."""
        self.bad_step = torch.full((), -1, dtype=torch.int64, device=self.device)
        """The first step whose loss was not finite, or −1; read only where something is logged."""

    def run(self, progress: Callable[[int], None] = lambda step: None) -> Trained:
        """Train to the end, or from the last checkpoint to the end."""
        start, journal = self._resumed()
        for step, batch in enumerate(self.batches.starting_at(start), start):
            if step > start and step % self.settings.checkpoint_every == 0:
                self._check_finite(journal)
                save_checkpoint(self.checkpoint, step, self._state(), journal)
            losses = self._step(step, self._scaled(batch.to(self.device)))
            if self._resamples_after(step):
                journal.revivals.append({"step": step, "revived": self._resample(step)})
            if step % self.settings.log_every == 0 or step == self.batches.steps - 1:
                journal.metrics.append(self._row(step, losses, batch))
                self._check_finite(journal)
                progress(step + 1)
        return Trained(self._finished(), journal, self.batches.steps)

    def _step(self, step: int, x_nd: Tensor) -> Losses:
        cell, steps = self.cell, self.batches.steps
        lengths = prefix_lengths(
            cell, self.weights.d_sae, generator(self.seed, self.id, "prefixes", step)
        )
        losses = training_losses(
            cell,
            self.weights,
            x_nd,
            lengths=lengths,
            lambda_=penalty_weight(cell, step, steps),
            dead_k=self._dead() if cell.revival == "auxk" else None,
        )
        self.optimiser.step(losses.loss, learning_rate(cell, step, steps))
        with torch.no_grad():
            fired = losses.z_nk.amax(dim=0) > 0
            self.silent_k.add_(len(x_nd)).masked_fill_(fired, 0)
            first = ~losses.loss.isfinite() & (self.bad_step < 0)
            self.bad_step = torch.where(first, step, self.bad_step)
        return losses

    def _dead(self) -> Tensor | None:
        """The latents for auxk to revive; None where asking whether there are any costs nothing.

        With none dead the auxiliary loss and its gradient are 0: leaving it out changes no weight.
        On a GPU the question would stop the queue on every step.
        """
        dead_k = self.silent_k >= self.cell.dead_tokens
        return dead_k if self.device.type != "cpu" or bool(dead_k.any()) else None

    def _resamples_after(self, step: int) -> bool:
        cell, done = self.cell, step + 1
        return (
            cell.revival == "resample"
            and done % cell.resample_every == 0
            and done <= cell.resample_until * self.batches.steps
        )

    def _resample(self, step: int) -> int:
        """Latents silent since the last resampling get new directions."""
        cell = self.cell
        dead = self.silent_k >= cell.resample_every * self.settings.batch_size
        rows = self._scaled(
            self.batches.sample(cell.resample_tokens, "resample-rows", step).to(self.device)
        )
        rng = generator(self.seed, self.id, "resample", step)
        revived = resample(cell, self.weights, self.optimiser, dead, rows, rng)
        self.silent_k.masked_fill_(dead, 0)
        return revived

    def _scaled(self, x_nd: Tensor) -> Tensor:
        return x_nd if self.scale == 1.0 else x_nd * self.scale

    def _row(self, step: int, losses: Losses, batch: Tensor) -> dict[str, Any]:
        """One row of metrics.jsonl. Reads only."""
        with torch.no_grad():
            fired = losses.z_nk > 0
            x_nd = self._scaled(batch.to(self.device))
            residual = (x_nd - losses.x_hat_nd).square().sum()
            row: dict[str, Any] = {
                "step": step,
                "tokens": (step + 1) * len(batch),
                "loss": losses.loss.item(),
                **{name: term.item() for name, term in losses.terms.items()},
                "fvu": (residual / (x_nd - x_nd.mean(0)).square().sum()).item(),
                "l0": fired.sum().item() / len(fired),
                "dead": (self.silent_k >= DEAD_WINDOW).sum().item(),
                "lr": learning_rate(self.cell, step, self.batches.steps),
            }
        if self.cell.revival == "auxk":
            row.setdefault("auxk", 0.0)
        if self.cell.penalty != "none":
            row["lambda"] = penalty_weight(self.cell, step, self.batches.steps)
        return row

    def _check_finite(self, journal: Journal) -> None:
        step = int(self.bad_step)
        if step < 0:
            return
        saved = load_checkpoint(self.checkpoint)
        terms = {k: v for k, v in journal.metrics[-1].items() if k not in ("step", "tokens")}
        said = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
        raise Diverged(
            f"the loss is not finite from step {step} on (step {journal.metrics[-1]['step']}: "
            f"{said}); last good checkpoint: " + (f"step {saved[0]}" if saved else "none"),
            journal,
        )

    def _state(self) -> dict[str, Tensor]:
        return {
            **self.weights.named(),
            **self.optimiser.state(),
            "silent_k": self.silent_k,
            "bad_step": self.bad_step,
        }

    def _resumed(self) -> tuple[int, Journal]:
        found = load_checkpoint(self.checkpoint)
        if found is None:
            return 0, Journal()
        step, tensors, journal = found
        with torch.no_grad():
            for name, tensor in self.weights.named().items():
                tensor.copy_(tensors[name])
        self.optimiser.restore(tensors)
        self.silent_k.copy_(tensors["silent_k"])
        self.bad_step.copy_(tensors["bad_step"])
        return step, journal

    def _finished(self) -> SAE:
        sae = finished(self.cell, self.weights, scale=self.scale)
        if self.cell.activation != "batchtopk":
            return sae
        assert self.cell.k is not None
        shards = self.store.activations(self.hook, "calibration")
        with torch.no_grad():
            return calibrated(
                sae,
                (
                    torch.from_numpy(rows.astype("float32")).to(self.device)
                    for rows in shards.batches(CALIBRATION_CHUNK)
                ),
                self.cell.k,
                shards.rows,
            )
