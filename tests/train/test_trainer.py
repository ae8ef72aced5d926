"""The laws of the trainer, bit for bit."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sae_repro.params import Cell, Train
from sae_repro.store import ActivationStore
from sae_repro.train import trainer as trainer_module
from sae_repro.train.trainer import Diverged, Trained, Trainer

HOOK = "blocks.0.hook_resid_post"
SETTINGS = Train(batch_size=64, epochs=1, log_every=10, checkpoint_every=20)

CELLS = {
    "vanilla": Cell(expansion=4, penalty="l1", lambda_=1e-2),
    "resample": Cell(
        expansion=4, penalty="l1", lambda_=5.0, lr=0.2, revival="resample", resample_every=20,
        resample_tokens=500,
    ),
    "free": Cell(expansion=4, penalty="l1_decoder_norm", lambda_=1e-2, decoder="free"),
    "topk": Cell(expansion=4, activation="topk", k=3, normalisation="expected_norm"),
    "auxk": Cell(expansion=4, activation="topk", k=3, revival="auxk", dead_tokens=200),
    "batchtopk": Cell(expansion=4, activation="batchtopk", k=3),
    "matryoshka-fixed": Cell(expansion=4, activation="batchtopk", k=3, prefixes="fixed"),
    "matryoshka-random": Cell(
        expansion=4, activation="batchtopk", k=3, prefixes="random", revival="auxk", dead_tokens=200
    ),
    "matryoshka-relu": Cell(expansion=4, penalty="l1", lambda_=1e-2, prefixes="random"),
}  # fmt: skip


@pytest.fixture
def train(make_store: Callable[..., Path], tmp_path: Path) -> Callable[..., Trained]:
    store = ActivationStore(make_store())
    count = itertools.count()

    def run(
        cell: Cell, *, settings: Train = SETTINGS, seed: int = 0, checkpoint: Path | None = None
    ) -> Trained:
        folder = checkpoint or tmp_path / f"checkpoint-{next(count)}"
        return Trainer(cell, settings, store, HOOK, seed=seed, checkpoint=folder).run()

    return run


def bits(trained: Trained) -> dict[str, bytes]:
    tensors = trained.sae.weights.named()
    if trained.sae.threshold_k is not None:
        tensors["threshold"] = trained.sae.threshold_k
    return {name: t.detach().numpy().tobytes() for name, t in tensors.items()}


@pytest.mark.parametrize("name", CELLS)
def test_same_seed_same_bits_other_seed_other_bits(
    name: str, train: Callable[..., Trained]
) -> None:
    first = bits(train(CELLS[name]))
    assert first == bits(train(CELLS[name]))
    assert first != bits(train(CELLS[name], seed=1))
    assert first != bits(train(CELLS[name].model_copy(update={"seed": 1})))


@pytest.mark.parametrize("name", CELLS)
def test_logging_and_checkpoints_change_no_bit(name: str, train: Callable[..., Trained]) -> None:
    often = SETTINGS.model_copy(update={"log_every": 1, "checkpoint_every": 3})
    never = SETTINGS.model_copy(update={"log_every": 10_000, "checkpoint_every": 10_000})
    assert bits(train(CELLS[name], settings=often)) == bits(train(CELLS[name], settings=never))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("stop_at", [1, 20, 47])
def test_killed_and_resumed_ends_with_the_same_bits(
    name: str, stop_at: int, train: Callable[..., Trained], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    undisturbed = train(CELLS[name])
    step_of = Trainer._step

    def die(self: Trainer, step: int, x_nd: torch.Tensor) -> object:
        if step == stop_at:
            raise KeyboardInterrupt
        return step_of(self, step, x_nd)

    folder = tmp_path / "killed"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "_step", die)
        train(CELLS[name], checkpoint=folder)
    resumed = train(CELLS[name], checkpoint=folder)
    assert bits(resumed) == bits(undisturbed)
    assert resumed.journal == undisturbed.journal


def test_no_global_generator_is_touched(train: Callable[..., Trained]) -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes()
    train(CELLS["resample"])
    train(CELLS["matryoshka-random"])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tobytes()


def test_training_learns(train: Callable[..., Trained]) -> None:
    rows = train(CELLS["topk"], settings=SETTINGS.model_copy(update={"epochs": 4})).journal.metrics
    assert rows[-1]["fvu"] < 0.7 * rows[0]["fvu"]
    assert rows[-1]["l0"] <= 3


def test_resampling_is_told_in_the_journal(train: Callable[..., Trained]) -> None:
    journal = train(CELLS["resample"]).journal
    assert [entry["step"] for entry in journal.revivals] == [19, 39]
    assert sum(entry["revived"] for entry in journal.revivals) > 0


def test_batchtopk_reaches_its_k_on_calibration_tokens(
    train: Callable[..., Trained], make_store: Callable[..., Path]
) -> None:
    sae = train(CELLS["batchtopk"], settings=SETTINGS.model_copy(update={"epochs": 4})).sae
    store = ActivationStore(make_store())
    x = torch.from_numpy(np.concatenate(list(store.activations(HOOK, "calibration").batches(99))))
    assert float((sae.encode(x) > 0).sum(1).double().mean()) == pytest.approx(3, abs=0.02)


def test_not_a_number_stops_the_cell_and_says_where(
    make_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(
        CELLS["vanilla"], SETTINGS, ActivationStore(make_store()), HOOK, seed=0,
        checkpoint=tmp_path / "c",
    )  # fmt: skip
    scaled = Trainer._scaled
    calls = itertools.count()

    def poisoned(self: Trainer, x_nd: torch.Tensor) -> torch.Tensor:
        # two calls per logged step: at step 33 the batch holds a NaN
        return scaled(self, x_nd) * (float("nan") if next(calls) == 33 + 4 else 1.0)

    monkeypatch.setattr(trainer_module.Trainer, "_scaled", poisoned)
    with pytest.raises(
        Diverged, match=r"not finite from step 33 on .*last good checkpoint: step 20"
    ):
        trainer.run()


def test_auxk_left_out_where_nothing_is_dead_changes_no_bit(
    train: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    shortcut = train(CELLS["auxk"])
    dead = lambda self: self.silent_k >= self.cell.dead_tokens  # noqa: E731
    monkeypatch.setattr(Trainer, "_dead", dead)
    assert bits(train(CELLS["auxk"])) == bits(shortcut)
    late = CELLS["auxk"].model_copy(update={"dead_tokens": 10**9})
    assert {row["auxk"] for row in train(late).journal.metrics} == {0.0}
