"""Training of one cell, from its first step to its last: the only place where weights change.

A step, in order, and the module that does it:

     1. the step's batch, scaled                                 `batches`, `finishing.scale_of`
     2. lengths of the prefixes, from the step's own generator   `autoencoders.prefixes`
     3. λ as warmed up                                           `schedules`
     4. code z, reconstruction, penalty, auxk of dead latents,
        and their gradients                                      `steps`, `_dead`
     5. gradient without radial part, clipped; Adam; unit rows   `optimiser`, `schedules`
     6. tokens since each latent fired                           here
     7. λ steered towards target_l0                              `schedules.control_rate`, here
     8. BatchTopK's running threshold, for the record            `running_threshold`
     9. faults noted: not finite, diverged, collapsed            `watch`
    10. latents sorted by contribution                           `contribution`, `optimiser.permute`
    11. at set steps: dead latents resampled                     `resampling`
    12. at set steps: metrics row, faults raised, checkpoint     `journal`, `watch`, `checkpoint`

After the last step `finishing` folds the scale into the weights and calibrates BatchTopK's
threshold.

A step is a function of (weights, Adam's state, batch, step number, named generators). Logging and
checkpoints only read, so that their intervals change no bit.
"""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders import (
    SAE,
    Weights,
    decoder_norm,
    initial_weights,
    prefix_lengths,
)
from sae_repro.errors import StudyError
from sae_repro.files import digest
from sae_repro.numerics.random import generator
from sae_repro.params import Cell, Train
from sae_repro.readers.joined import widths_of
from sae_repro.readers.shards import ActivationStore
from sae_repro.training.batches import Batches
from sae_repro.training.checkpoint import load_checkpoint, save_checkpoint
from sae_repro.training.contribution import Contribution
from sae_repro.training.finishing import Trained, factor_of, finished_sae, scale_of, scaled_norm
from sae_repro.training.journal import Journal, as_json, metrics_row
from sae_repro.training.optimiser import Optimiser
from sae_repro.training.pairs import Pairs
from sae_repro.training.resampling import resample
from sae_repro.training.running_threshold import RunningThreshold
from sae_repro.training.schedules import control_factor, learning_rate, penalty_warmup
from sae_repro.training.steps import Step, StepCode, Taken, step_of
from sae_repro.training.watch import Diverged, Watch, check_finite

INITIAL_ROWS = 16_384  # inputs whose geometric median b_dec starts from


def cell_id(cell: Cell) -> str:
    """Names a cell's generators: a hash of its choices, the same under every name."""
    return digest(cell.identity())[:16]


class Trainer:
    """Trains one cell; `run` may be killed anywhere and run again with the same checkpoint."""

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
        target = cell.target_hook or hook
        self.pairs = (
            Pairs.of(cell, store, hook, self.device) if cell.target_hook is not None else None
        )
        """Of a transcoder: its rows, inputs and targets side by side."""
        shards = self.pairs or store.activations(hook, "train")
        steps = cell.steps(settings.batch_size, settings.epochs, shards.rows)
        if not steps:
            raise StudyError(
                f"train.batch_size = {settings.batch_size}: {hook} has only "
                f"{shards.rows} training activations"
            )
        self.batches = Batches(shards, settings.batch_size, steps, seed=seed, cell_id=self.id)
        d_in = store.d_in(hook)
        self.scale = factor_of(cell, store, hook, self.device)
        self.epsilon = cell.jumprelu_bandwidth * scaled_norm(cell, store, hook)
        """JumpReLU's kernel width, and where its thresholds start."""
        self.target_scale = scale_of(cell, store, target)
        per = store.d_in(target) if cell.reconstruction == "mean" else 1
        power = scaled_norm(cell, store, target) ** 2 / per
        self.threshold = RunningThreshold(self.device)
        """Followed where the SAE's own threshold is calibrated."""
        self.watch = Watch(cell, settings, self.batches.steps, power)
        sample = self._scaled(self.batches.sample(INITIAL_ROWS, "b_dec"))
        rng = generator(seed, self.id, "weights")
        self._begin(d_in, sample.cpu(), rng)
        self.silent_k = torch.zeros(self.weights.d_sae, dtype=torch.int64, device=self.device)
        """Tokens since a latent last fired (or was resampled)."""
        self.contribution = Contribution(self.weights.d_sae, self.device)
        """Moved only by `order: contribution`."""
        self.lambda_ = torch.tensor(cell.lambda_ or 0.0, dtype=torch.float64, device=self.device)
        """λ after its warm-up; moved only by the controller of `target_l0`."""

    def _begin(self, d_in: int, sample: Tensor, rng: np.random.Generator) -> None:
        """Initial weights, their optimiser, and the step."""
        first = initial_weights(self.cell, d_in, sample, rng, epsilon=self.epsilon)
        self.weights = Weights(**{n: t.to(self.device) for n, t in first.named().items()})
        self.weights.widths = widths_of(self.store, self.hook) if self.cell.hooks else ()
        self.optimiser = Optimiser(self.cell, self.weights)
        bf16, epsilon = self.settings.precision == "bfloat16", self.epsilon
        self.step_of_cell: Step = step_of(self.cell, self.weights, epsilon=epsilon, autocast=bf16)

    def run(
        self,
        progress: Callable[[int], None] = lambda step: None,
        *,
        logs: Callable[[int], bool] | None = None,
    ) -> Trained:
        """Train to the end, from the last checkpoint on if there is one.

        `logs` says of a step whether it is logged (None: every `log_every` steps); the last one is.
        """
        journal = self.advance(self.batches.steps, progress, logs=logs)
        sae = self.sae()
        check_finite(sae, journal)  # the last step may have broken what its loss has not seen
        return Trained(sae, journal, self._thresholds(sae))

    def advance(
        self,
        end: int,
        progress: Callable[[int], None] = lambda step: None,
        *,
        logs: Callable[[int], bool] | None = None,
    ) -> Journal:
        """Take the steps up to `end`, which is the last or a round's: 1, 11 and 12 of the map."""
        logged = logs or (lambda step: step % self.settings.log_every == 0)
        if not self.store.rms(self.hook):
            raise Diverged("all training activations are 0: there is nothing to learn", Journal())
        start, journal = self._resumed()
        left = islice(self.batches.starting_at(start), max(0, end - start))
        for step, batch in enumerate(left, start):
            taken = self._step(step, self._scaled(batch))
            if self._resamples_after(step):
                journal.revivals.append({"step": step, **self._resample(step)})
            done = step + 1
            logging = logged(step) or done == self.batches.steps
            saves = done < self.batches.steps and (
                done % self.settings.checkpoint_every == 0 or done in self.batches.pauses
            )
            if logging or (saves and self.watch.fault()):  # the failure's terms
                row = self._row(step, taken, batch)
                journal.metrics.append(as_json(row))
                self.watch.check(row, journal, self.checkpoint)
                progress(done)
            if saves:
                self._save(done, journal)
        return journal

    @torch.no_grad()
    @np.errstate(over="ignore", invalid="ignore")  # what is not finite is the watch's to report
    def _step(self, step: int, x_nd: Tensor) -> Taken:
        """Numbers 2 to 10 of the map."""
        cell, steps = self.cell, self.batches.steps
        lengths = [self.weights.d_sae]
        if cell.prefixes != "none":
            rng = generator(self.seed, self.id, "prefixes", step)
            lengths = prefix_lengths(cell, self.weights.d_sae, rng)
        taken = self.step_of_cell.take(
            x_nd,
            lengths=lengths,
            lambda_=self.lambda_ * penalty_warmup(cell, step, steps)
            if cell.penalty != "none"
            else 0.0,
            dead_k=self._dead() if cell.revival_row.auxiliary else None,
        )
        self._update(taken, learning_rate(cell, self.weights.d_in, step, steps))
        code, l0 = taken.code, taken.code.l0
        self.silent_k.add_(len(x_nd)).masked_fill_(code.fired_k(), 0)
        self._steer(step, l0)
        if cell.activation_row.threshold == "calibrated":
            self.threshold.follow(code.smallest(decoder_norm(cell, self.weights)))
        self.watch.note(step, taken, l0, self._target(x_nd))
        if cell.order == "contribution":
            self._reorder(code)
        return taken

    def _update(self, taken: Taken, lr: float) -> None:
        if isinstance(taken.loss, torch.Tensor):
            self.optimiser.step(taken.loss, lr)
        else:
            assert taken.gradients is not None
            self.optimiser.apply(taken.gradients, lr)

    def _steer(self, step: int, l0: Tensor | float) -> None:
        """Multiplicative control: λ up where the batch has at least the target L0, else down."""
        if self.cell.steered:
            self.lambda_ *= control_factor(self.cell, l0, step, self.batches.steps)

    def _thresholds(self, sae: SAE) -> dict[str, float | None]:
        if self.cell.activation_row.threshold != "calibrated":
            return {}
        assert sae.weights.threshold is not None
        threshold, mean = sae.weights.threshold[0].item(), self.threshold.mean.item()
        mean /= self.target_scale
        return as_json({"threshold_calibrated": threshold, "threshold_training_mean": mean})

    def _reorder(self, code: StepCode) -> None:
        """Latents by falling contribution; everything that is indexed by latent moves along."""
        order_k = self.contribution.order_k(code.square_k(), decoder_norm(self.cell, self.weights))
        if order_k is None:
            return
        self.optimiser.permute(order_k)
        for indexed_k in (self.contribution.mean_k, self.silent_k):
            indexed_k.copy_(indexed_k[order_k])

    def _dead(self) -> Tensor | None:
        """The latents that auxk revives; None if there are none and the device is the CPU.

        With none dead the auxiliary loss and its gradient are 0: leaving it out changes no weight.
        On a GPU the question would stop the queue on every step.
        """
        dead_k = self.silent_k >= self.cell.dead_tokens
        return dead_k if self.device.type != "cpu" or bool(dead_k.any()) else None

    def _resamples_after(self, step: int) -> bool:
        cell, done = self.cell, step + 1
        return (
            cell.resamples
            and done % cell.resample_every == 0
            and done <= cell.resample_until * self.batches.steps
        )

    def _resample(self, step: int) -> dict[str, Any]:
        """New directions for latents silent since the last resampling; their number and indices."""
        cell = self.cell
        dead_k = self.silent_k >= cell.resample_every * self.settings.batch_size
        rows = self._scaled(
            self.batches.sample(cell.resample_tokens, "resample-rows", step, at=step)
        )
        rng = generator(self.seed, self.id, "resample", step)
        revived = resample(
            cell, self.weights, self.optimiser, dead_k, rows, rng, epsilon=self.epsilon
        )
        self.silent_k.masked_fill_(dead_k, 0)
        self.contribution.mean_k.masked_fill_(dead_k, 0)
        return {"revived": revived, "latents": dead_k.nonzero().flatten().tolist()}

    def _scaled(self, x_nd: Tensor) -> Tensor:
        """Rows from the store as training sees them, on its device."""
        if self.device.type == "cuda":
            # from pinned memory, or the copy would wait until the queue is empty
            x_nd = x_nd.pin_memory().to(self.device, non_blocking=True)
        if self.pairs is not None:
            return self.pairs.scaled(x_nd)
        plain = isinstance(self.scale, float) and self.scale == 1.0
        return x_nd if plain else x_nd * self.scale

    def _target(self, x_nd: Tensor) -> Tensor:
        """What of a scaled batch is reconstructed."""
        return x_nd if self.pairs is None else self.pairs.targets_of(x_nd)

    def _row(self, step: int, taken: Taken, batch: Tensor) -> dict[str, Any]:
        """One row of metrics.jsonl. Reads only."""
        lr = learning_rate(self.cell, self.weights.d_in, step, self.batches.steps)
        x_nd = self._target(self._scaled(batch))
        row = metrics_row(step, taken, x_nd, self.silent_k, lr=lr)
        if self.cell.revival_row.auxiliary:
            row.setdefault("auxk", 0.0)
        if self.cell.penalty != "none":
            row["lambda"] = self._lambda_at(step)
        return row

    def _lambda_at(self, step: int) -> float:
        return self.lambda_.item() * penalty_warmup(self.cell, step, self.batches.steps)

    def _state(self) -> dict[str, Tensor]:
        return {**self.weights.named(), **self.optimiser.state(), **self._clocks()}

    def _clocks(self) -> dict[str, Tensor]:
        """The state of a step beside weights and Adam's."""
        return {
            "silent_k": self.silent_k,
            "contribution_k": self.contribution.mean_k,
            "lambda_": self.lambda_,
            "threshold_mean": self.threshold.mean,
            **self.watch.state(),
        }

    def _save(self, done: int, journal: Journal) -> None:
        save_checkpoint(self.checkpoint, done, self._state(), journal)

    def _resumed(self) -> tuple[int, Journal]:
        checkpoint = load_checkpoint(self.checkpoint)
        if checkpoint is None:
            return 0, Journal()
        step, tensors, journal = checkpoint
        with torch.no_grad():
            for name, tensor in (self.weights.named() | self._clocks()).items():
                tensor.copy_(tensors[name])
        self.optimiser.restore(tensors)
        return step, journal

    def sae(self) -> SAE:
        """The SAE of the weights as they are now, BatchTopK's threshold calibrated."""
        return finished_sae(self.cell, self.weights, self.store, self.hook)
