"""The laws of the trainer, bit for bit."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_repro.files import sha256_file
from sae_repro.params import Cell, Train
from sae_repro.params.axes import AXES
from sae_repro.params.axis_labels import ACTIVATION_LABELS
from sae_repro.readers.shards import ActivationStore
from sae_repro.training.batches import Batches
from sae_repro.training.optimiser import Optimiser
from sae_repro.training.steps import Reference
from sae_repro.training.trainer import Trained, Trainer, cell_id
from sae_repro.training.watch import Diverged

HOOK = "blocks.0.hook_resid_post"
Rows = Callable[[int, int, int], np.ndarray]
SETTINGS = Train(batch_size=64, epochs=1, log_every=10, checkpoint_every=20)

CELLS = {
    "vanilla": Cell(expansion=4, penalty="l1", lambda_=1e-2),
    "resample": Cell(
        expansion=4, penalty="l1", lambda_=0.3, lr=0.05, revival="resample", resample_every=20,
        resample_tokens=500,
    ),
    "free": Cell(expansion=4, penalty="l1_decoder_norm", lambda_=1e-2, decoder="free"),
    "topk": Cell(expansion=4, activation="topk", k=3, normalisation="none"),
    "auxk": Cell(expansion=4, activation="topk", k=3, revival="auxk", dead_tokens=200),
    "batchtopk": Cell(expansion=4, activation="batchtopk", k=3),
    "matryoshka-fixed": Cell(expansion=4, activation="batchtopk", k=3, prefixes="fixed"),
    "matryoshka-random": Cell(
        expansion=4, activation="batchtopk", k=3, prefixes="random", revival="auxk", dead_tokens=200
    ),
    "hierarchical": Cell(expansion=4, activation="topk", k=3, prefixes="hierarchical"),
    "all": Cell(expansion=4, activation="batchtopk", k=3, prefixes="all"),
    "matryoshka-relu": Cell(expansion=4, penalty="l1", lambda_=1e-2, prefixes="random"),
    "jumprelu": Cell(
        expansion=4, activation="jumprelu", penalty="l0", lambda_=1e-2, target_l0=5,
        jumprelu_bandwidth=0.1, lambda_warmup=0.1,
    ),
    "jumprelu-quadratic": Cell(
        expansion=4, activation="jumprelu", penalty="l0_quadratic", lambda_=1e-1, target_l0=5,
        jumprelu_bandwidth=0.1,
    ),
    "gated": Cell(expansion=4, activation="gated", penalty="l1", lambda_=1e-2, target_l0=4),
    "gated-resample": Cell(
        expansion=4, activation="gated", penalty="l1", lambda_=0.3, lr=0.05, revival="resample",
        resample_every=20, resample_tokens=500,
    ),
    "tanh": Cell(expansion=4, penalty="tanh", lambda_=1e-2, decoder="free"),
    "published": Cell(
        expansion=4, penalty="l1", lambda_=0.3, lr=0.05, decoder="free",
        revival="resample_published", resample_every=20, resample_tokens=500,
        prefixes="random_published",
    ),
    "ordered": Cell(
        expansion=4, activation="jumprelu", penalty="l0", lambda_=1e-2, jumprelu_bandwidth=0.1,
        prefixes="random", order="contribution",
    ),
    "frozen-decoder": Cell(expansion=4, activation="topk", k=3, frozen="decoder", lr=0.05),
    "frozen-soft": Cell(expansion=4, activation="topk", k=3, frozen="soft_decoder", lr=0.05),
    "frozen-soft-free": Cell(
        expansion=4, penalty="l1_decoder_norm", lambda_=1e-2, decoder="free", lr=0.05,
        frozen="soft_decoder",
    ),
    "frozen-encoder": Cell(
        expansion=4, activation="batchtopk", k=3, frozen="encoder", lr=0.05, prefixes="random"
    ),
}  # fmt: skip
CELLS |= {
    name: Cell(expansion=4, activation=name, **row.example)
    for name, row in ACTIVATION_LABELS.items()
    if name not in {cell.activation for cell in CELLS.values()}
}


def test_every_value_is_trained() -> None:
    """Penalties differ in their formula alone, which has its own tests."""
    for axis in ("activation", "prefixes", "revival"):
        assert {getattr(cell, axis) for cell in CELLS.values()} == set(AXES[axis])


@pytest.fixture
def train(make_store: Callable[..., Path], tmp_path: Path) -> Callable[..., Trained]:
    store = ActivationStore(make_store())
    count = itertools.count()

    def run(
        cell: Cell, *, settings: Train = SETTINGS, seed: int = 0, checkpoint: Path | None = None,
        logs: Callable[[int], bool] | None = None,
    ) -> Trained:  # fmt: skip
        folder = checkpoint or tmp_path / f"checkpoint-{next(count)}"
        return Trainer(cell, settings, store, HOOK, seed=seed, checkpoint=folder).run(logs=logs)

    return run


def bits(trained: Trained) -> dict[str, bytes]:
    weights = trained.sae.weights.named()
    return {name: t.detach().numpy().tobytes() for name, t in weights.items()}


@pytest.mark.parametrize("name", CELLS)
def test_same_seed_same_bits_other_seed_other_bits(
    name: str, train: Callable[..., Trained]
) -> None:
    first = bits(train(CELLS[name]))
    assert first == bits(train(CELLS[name]))
    assert first != bits(train(CELLS[name], seed=1))
    assert first != bits(train(CELLS[name].model_copy(update={"seed": 1})))


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=1)


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("name", [name for name in CELLS if name.startswith("frozen")])
def test_what_is_frozen_stays_as_it_was_drawn(
    name: str, by_hand: bool, make_store: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """And what is not is trained; decoder rows of a soft one reach the rim of their cone."""
    if not by_hand:
        monkeypatch.setattr(
            "sae_repro.training.trainer.step_of",
            lambda cell, weights, epsilon, autocast: Reference(cell, weights, epsilon),
        )
    cell, store = CELLS[name], ActivationStore(make_store())
    trainer = Trainer(cell, SETTINGS, store, HOOK, seed=0, checkpoint=tmp_path / "none")
    start = {n: t.detach().clone() for n, t in trainer.weights.named().items()}
    trainer.run()
    end = {n: t.detach() for n, t in trainer.weights.named().items()}
    kept = {"decoder": "W_dec", "encoder": "W_enc"}.get(str(cell.frozen))
    for weight in start:
        assert torch.equal(start[weight], end[weight]) == (weight == kept), weight
    if cell.frozen == "soft_decoder":
        near = cosines(start["W_dec"], end["W_dec"])
        assert near.min() == pytest.approx(0.8, abs=1e-6)
        assert near.max() < 1 - 1e-6
    if cell.decoder == "unit_norm":
        torch.testing.assert_close(end["W_dec"].norm(dim=1), torch.ones(len(end["W_dec"])))


@pytest.mark.parametrize("name", CELLS)
def test_logging_and_checkpoints_change_no_bit(name: str, train: Callable[..., Trained]) -> None:
    often = SETTINGS.model_copy(update={"log_every": 1, "checkpoint_every": 3})
    never = SETTINGS.model_copy(update={"log_every": 10_000, "checkpoint_every": 10_000})
    assert bits(train(CELLS[name], settings=often)) == bits(train(CELLS[name], settings=never))


def test_the_steps_that_a_caller_chose_are_logged_and_the_last(
    train: Callable[..., Trained],
) -> None:
    every = train(CELLS["vanilla"], settings=SETTINGS.model_copy(update={"log_every": 1}))
    chosen = train(CELLS["vanilla"], logs=lambda step: 7 <= step < 10)
    rows = every.journal.metrics
    assert chosen.journal.metrics == [*rows[7:10], rows[-1]]
    assert bits(chosen) == bits(every)


def test_another_pass_over_the_same_rows_is_no_reason_for_a_checkpoint(
    train: Callable[..., Trained], tmp_path: Path
) -> None:
    passes = SETTINGS.model_copy(update={"epochs": 3, "checkpoint_every": 10_000})
    train(CELLS["vanilla"], settings=passes, checkpoint=tmp_path / "none")
    assert not (tmp_path / "none").exists()


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


@pytest.mark.parametrize("name", ["resample", "matryoshka-random", "gated"])
def test_tokens_set_the_steps_and_schedules_follow(
    name: str, train: Callable[..., Trained], make_store: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One and a half passes, killed in the second and resumed; train.epochs plays no part."""
    rows = ActivationStore(make_store()).activations(HOOK, "train").rows
    steps = int(1.5 * (rows // 64))
    cell = CELLS[name].model_copy(update={"tokens": steps * 64 + 63})
    undisturbed = train(cell)
    assert bits(undisturbed) == bits(
        train(cell, settings=SETTINGS.model_copy(update={"epochs": 7}))
    )
    last = undisturbed.journal.metrics[-1]
    assert last["step"] == steps - 1
    assert last["lr"] == pytest.approx(cell.peak_lr(undisturbed.sae.d_in) / (0.2 * steps))
    step_of = Trainer._step

    def die(self: Trainer, step: int, x_nd: torch.Tensor) -> object:
        if step == steps - 3:
            raise KeyboardInterrupt
        return step_of(self, step, x_nd)

    folder = tmp_path / "killed"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "_step", die)
        train(cell, checkpoint=folder)
    resumed = train(cell, checkpoint=folder)
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


def test_the_journal_records_resamplings(train: Callable[..., Trained]) -> None:
    journal = train(CELLS["resample"]).journal
    assert [entry["step"] for entry in journal.revivals] == [19, 39]
    assert sum(entry["revived"] for entry in journal.revivals) > 0
    assert all(entry["revived"] == len(set(entry["latents"])) for entry in journal.revivals)


@pytest.mark.parametrize("normalisation", ["none", "expected_norm"])
def test_batchtopk_reaches_its_k_on_calibration_tokens(
    normalisation: str, train: Callable[..., Trained], make_store: Callable[..., Path]
) -> None:
    cell = CELLS["batchtopk"].model_copy(update={"normalisation": normalisation})
    trained = train(cell, settings=SETTINGS.model_copy(update={"epochs": 4}))
    sae = trained.sae
    followed = trained.thresholds["threshold_training_mean"]
    assert followed == pytest.approx(trained.thresholds["threshold_calibrated"], rel=0.4)
    store = ActivationStore(make_store())
    x = torch.from_numpy(np.concatenate(list(store.activations(HOOK, "calibration").batches(99))))
    assert float((sae.encode(x) > 0).sum(1).double().mean()) == pytest.approx(3, abs=0.02)


@pytest.mark.parametrize("often", [1, 20, 1000])
def test_not_a_number_stops_the_cell_and_names_the_step(
    often: int, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    """A NaN in a shard (whose checksum says that it belongs there) is met at its own step."""
    # b_dec from zero: its median would meet the NaN before any step does
    cell = CELLS["vanilla"].model_copy(update={"b_dec_init": "zero"})
    folder = make_store()
    store = ActivationStore(folder)
    batches = Batches(store.activations(HOOK, "train"), 64, 40, seed=0, cell_id=cell_id(cell))
    bad = list(batches.starting_at(0))[33][5].numpy()
    for entry in store.manifest["hooks"][HOOK]["shards"]["train"]:
        rows = np.load(folder / entry["file"])
        rows[(rows == bad).all(1)] = np.nan
        np.save(folder / entry["file"], rows)
        entry["sha256"] = sha256_file(folder / entry["file"])
    settings = SETTINGS.model_copy(update={"log_every": often})
    trainer = Trainer(cell, settings, store, HOOK, seed=0, checkpoint=tmp_path / "c")
    with pytest.raises(
        Diverged, match=r"loss is not finite from step 33 on .*reconstruction nan.*: step 20$"
    ):
        trainer.run()


@pytest.mark.parametrize("name", ["vanilla", "free", "jumprelu", "gated", "topk", "published"])
def test_an_extreme_learning_rate_is_reported_as_diverged(
    name: str, train: Callable[..., Trained]
) -> None:
    cell = CELLS[name].model_copy(update={"lr": 10.0})
    with pytest.raises(Diverged, match=r"(diverged|collapsed): .* from step \d+ on .*checkpoint"):
        train(cell, settings=SETTINGS.model_copy(update={"epochs": 4}))


@pytest.mark.parametrize("name", ["vanilla", "free", "tanh", "gated"])
def test_a_penalty_that_kills_every_latent_is_reported_as_collapsed(
    name: str, train: Callable[..., Trained]
) -> None:
    cell = CELLS[name].model_copy(update={"lambda_": 1e6, "lr": 0.05, "target_l0": None})
    with pytest.raises(
        Diverged, match=r"collapsed: less than one latent fires in 100 tokens from step"
    ):
        train(cell, settings=SETTINGS.model_copy(update={"epochs": 12}))


@pytest.mark.parametrize("name", ["jumprelu", "gated", "vanilla"])
def test_the_controller_holds_the_target_l0(name: str, train: Callable[..., Trained]) -> None:
    for target in (2.0, 4.0):
        cell = CELLS[name].model_copy(update={"target_l0": target, "lambda_": 3e-2, "lr": 3e-3})
        rows = train(cell, settings=SETTINGS.model_copy(update={"epochs": 20})).journal.metrics
        reached = np.mean([row["l0"] for row in rows[-20:]])
        assert reached == pytest.approx(target, rel=0.1)


def test_ordered_latents_contribute_in_falling_order_and_settle(
    make_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = CELLS["matryoshka-random"].model_copy(update={"order": "contribution", "lr": 1e-6})
    moved: list[int] = []
    permute = Optimiser.permute

    def counting(self: Optimiser, order_k: torch.Tensor) -> None:
        moved.append(int((order_k != torch.arange(len(order_k))).sum()))
        permute(self, order_k)

    monkeypatch.setattr(Optimiser, "permute", counting)
    trainer = Trainer(
        cell, SETTINGS, ActivationStore(make_store()), HOOK, seed=0, checkpoint=tmp_path / "c"
    )
    trainer.run()
    assert torch.equal(
        trainer.contribution.mean_k, trainer.contribution.mean_k.sort(descending=True).values
    )
    # with the running mean left behind, nearly all latents would go on moving on every step
    assert moved[0] > 16
    assert np.mean(moved[-20:]) < 16


@pytest.mark.parametrize(
    "revival",
    [
        {},
        {"revival": "auxk", "dead_tokens": 200},
        {"revival": "resample", "resample_every": 10, "resample_tokens": 500},
    ],
    ids=["none", "auxk", "resample"],
)
def test_sorting_latents_changes_names_only(
    revival: dict[str, Any],
    train: Callable[..., Trained],
    sparse_rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without prefixes that tell latents apart, order must leave the function alone.

    Revival reads how long each latent was silent, which moves along with its weights.
    """
    cell = Cell(
        expansion=4, activation="topk", k=3, prefixes="fixed", prefix_shares=(1.0,), **revival
    )
    monkeypatch.setattr("sae_repro.training.trainer.cell_id", lambda cell: "one for both")
    plain, ordered = train(cell), train(cell.model_copy(update={"order": "contribution"}))
    x = torch.from_numpy(sparse_rows(200, 8, 9))

    def by_sum(trained: Trained) -> torch.Tensor:
        return trained.sae.encode(x).sum(0).sort().values

    torch.testing.assert_close(by_sum(plain), by_sum(ordered))
    revived = [[row["revived"] for row in trained.journal.revivals] for trained in (plain, ordered)]
    assert revived[0] == revived[1]
    assert (sum(revived[0]) > 0) == ("resample_every" in revival)


def test_a_resampled_latent_counts_as_new(make_store: Callable[..., Path], tmp_path: Path) -> None:
    """What it was before neither ranks it nor has it resampled once more."""
    cell = Cell(
        expansion=4, penalty="l1", lambda_=1e-2, prefixes="random", order="contribution",
        revival="resample", resample_every=20, resample_tokens=500,
    )  # fmt: skip
    trainer = Trainer(
        cell, SETTINGS, ActivationStore(make_store()), HOOK, seed=0, checkpoint=tmp_path / "c"
    )
    trainer.contribution.mean_k.fill_(1.0)
    dead_k = torch.arange(trainer.weights.d_sae) % 3 == 1
    trainer.silent_k.fill_(1).masked_fill_(dead_k, 10**6)
    assert trainer._resample(19)["latents"] == dead_k.nonzero().flatten().tolist()
    assert torch.equal(trainer.silent_k, (~dead_k).to(torch.int64))
    assert torch.equal(trainer.contribution.mean_k, (~dead_k).to(torch.float32))


def test_half_precision_products_leave_the_weights_whole(train: Callable[..., Trained]) -> None:
    settings = SETTINGS.model_copy(update={"precision": "bfloat16", "epochs": 4})
    for name in ("vanilla", "matryoshka-random", "jumprelu", "gated"):
        cell = CELLS[name].model_copy(update={"lr": 3e-3})  # small steps: the two stay close
        whole = train(cell, settings=SETTINGS.model_copy(update={"epochs": 4}))
        half = train(cell, settings=settings)
        assert half.sae.weights.W_enc.dtype == torch.float32
        assert bits(half) != bits(whole)
        ours, theirs = (t.journal.metrics[-1]["fvu"] for t in (half, whole))
        assert ours == pytest.approx(theirs, rel=0.1)


def test_auxk_left_out_where_nothing_is_dead_changes_no_bit(
    train: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    shortcut = train(CELLS["auxk"])
    dead = lambda self: self.silent_k >= self.cell.dead_tokens  # noqa: E731
    monkeypatch.setattr(Trainer, "_dead", dead)
    assert bits(train(CELLS["auxk"])) == bits(shortcut)
    late = CELLS["auxk"].model_copy(update={"dead_tokens": 10**9})
    assert {row["auxk"] for row in train(late).journal.metrics} == {0.0}
