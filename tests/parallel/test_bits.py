"""Parts and ranks: the parts decide the bits, and the number of ranks does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_repro.autoencoders import initial_weights
from sae_repro.cli.footprint import finished_bytes, footprint
from sae_repro.parallel import trainer_of
from sae_repro.parallel.micro_batches import MicroBatches
from sae_repro.parallel.ranks import ALONE
from sae_repro.params import Cell, Train
from sae_repro.readers.shards import ActivationStore
from sae_repro.training import Trained, Trainer
from sae_repro.training.steps import Reference, step_of

from .ranked import HOOK, Result, train_alone, train_on

TOPK: dict[str, Any] = {"expansion": 4, "activation": "topk", "k": 3}
RELU: dict[str, Any] = {"expansion": 4, "penalty": "l1", "lambda": 1e-2, "target_l0": 4}
BATCHTOPK: dict[str, Any] = {"expansion": 4, "activation": "batchtopk", "k": 3}
WHOLE: dict[str, dict[str, Any]] = {
    "topk": TOPK,
    "relu": RELU,
    "batchtopk": BATCHTOPK,
    "jumprelu": {
        "expansion": 4, "activation": "jumprelu", "penalty": "l0", "lambda": 1e-2, "target_l0": 5,
        "jumprelu_bandwidth": 0.1,
    },
    "gated": {"expansion": 4, "activation": "gated", "penalty": "l1", "lambda": 1e-2},
    "trained_gated": {
        "expansion": 4, "activation": "gated", "penalty": "l1_decoder_norm", "decoder": "free",
        "lambda": 1e-2, "gated_auxiliary": "trained",
    },
    "hierarchical": {**TOPK, "prefixes": "hierarchical", "prefix_k": [1, 3]},
    "all": {**TOPK, "prefixes": "all"},
    "resample": {
        "expansion": 4, "penalty": "l1", "lambda": 0.3, "lr": 0.05, "revival": "resample",
        "resample_every": 20, "resample_tokens": 500,
    },
    "matryoshka": {
        "expansion": 4, "penalty": "l1", "lambda": 1e-2, "prefixes": "random",
        "order": "contribution",
    },
    "free": {
        "expansion": 4, "penalty": "l1_decoder_norm", "lambda": 1e-2, "decoder": "free",
        "reconstruction": "sum",
    },
}  # fmt: skip
CUT: dict[str, dict[str, Any]] = {
    f"{name}-{field}": {**fields, field: 4}
    for name, fields in WHOLE.items()
    for field in ("micro_batches", "latent_shards")
    if (field == "micro_batches" and name != "batchtopk")
    or (field == "latent_shards" and name in ("topk", "relu", "batchtopk"))
}
SETTINGS = {"batch_size": 64, "epochs": 4, "log_every": 10, "checkpoint_every": 100}


@pytest.fixture
def same_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    """All cells draw alike, whatever their choices."""
    monkeypatch.setattr("sae_repro.training.trainer.cell_id", lambda cell: "any")


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("name", CUT)
@pytest.mark.usefixtures("same_generators")
def test_the_first_steps_in_parts_are_those_of_the_whole_to_rounding(
    name: str, by_hand: bool, make_store: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not by_hand:
        if "latent_shards" in CUT[name]:
            pytest.skip("shards are computed by hand only")
        monkeypatch.setattr(
            "sae_repro.training.trainer.step_of",
            lambda cell, weights, epsilon, autocast: Reference(cell, weights, epsilon),
        )
    store, short = ActivationStore(make_store()), {"tokens": 25 * 64}
    of_name = (WHOLE[name.split("-")[0]], CUT[name])
    cells = [Cell.model_validate(fields | short) for fields in of_name]
    trainers = [
        of(cell, Train(batch_size=64, log_every=1), store, HOOK, seed=0, checkpoint=tmp_path / "no")
        for of, cell in zip((Trainer, trainer_of), cells, strict=True)
    ]
    if not by_hand:
        trainers[1].by_hand = False  # type: ignore[attr-defined]
    whole, parts = (trainer.run() for trainer in trainers)
    for row, same in zip(whole.journal.metrics, parts.journal.metrics, strict=True):
        # tokens that lie at b_dec have pre-activations of 0, to rounding
        assert same.pop("l0") == pytest.approx(row.pop("l0"), abs=0.2)
        assert same == pytest.approx(row, rel=2e-3, abs=1e-6), row["step"]
    for weight, tensor in whole.sae.weights.named().items():
        torch.testing.assert_close(parts.sae.weights.named()[weight], tensor, atol=2e-3, rtol=2e-3)
    assert whole.journal.revivals == parts.journal.revivals


@pytest.mark.slow
@pytest.mark.parametrize(("number", "names"), [(2, tuple(CUT)), (4, ("topk-micro_batches",))])
def test_the_number_of_ranks_changes_no_bit(
    number: int, names: tuple[str, ...], make_store: Callable[..., Path]
) -> None:
    """In weights and every logged number; in 200 steps of TopK, and in 40 of the others."""
    folder = make_store()
    cells = {
        name: {**CUT[name], "tokens": 64 * (200 if name.startswith("topk") else 40)}
        for name in names
    }
    alone = train_alone(folder, cells, SETTINGS)
    by_rank = train_on(number, folder, cells, SETTINGS)
    for name, one in alone.items():
        assert by_rank[0][name].sha256 == one.sha256, name
        assert all(results[name].metrics == one.metrics for results in by_rank), name
        assert len(one.metrics) == (21 if name.startswith("topk") else 5)
    for name in names:
        if name.split("-")[0] in ("topk", "relu", "batchtopk"):
            _check_footprint(Cell.model_validate(cells[name]), [r[name] for r in by_rank])


def _check_footprint(cell: Cell, results: list[Result]) -> None:
    """What is computed of memory and traffic is what the processes held and sent, to the byte."""
    number, steps = len(results), cell.steps(64, 1, 4096)
    computed = footprint(cell, 8, 64, number)
    # states are compared at the start and at each checkpoint
    compared = 32 * (number - 1) * (1 + (steps - 1) // 100) if cell.micro_batches > 1 else 0
    for rank, result in enumerate(results):
        at_the_end = finished_bytes(cell, 8, number) if rank else 0
        assert result.sent == steps * computed.sent + compared + at_the_end
        assert result.held == computed.state


@pytest.mark.parametrize("name", ["topk", "resample", "matryoshka", "hierarchical", "relu"])
def test_a_killed_cell_in_micro_batches_ends_as_an_undisturbed_one(
    name: str, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    """From a checkpoint in the middle, to the bit in weights and logged numbers."""
    store = ActivationStore(make_store())
    cell = Cell.model_validate({**CUT[f"{name}-micro_batches"], "tokens": 64 * 60})
    settings = Train(batch_size=64, log_every=10, checkpoint_every=25)

    def train(checkpoint: str, **run: Any) -> Trained:
        path = tmp_path / checkpoint
        return trainer_of(cell, settings, store, HOOK, seed=0, checkpoint=path).run(**run)

    def kill(step: int) -> None:
        if step >= 40:
            raise KeyboardInterrupt

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("killed", progress=kill)
    assert (tmp_path / "killed").exists()
    again = train("killed")
    assert again.journal.metrics == whole.journal.metrics
    for weight, tensor in whole.sae.weights.named().items():
        assert torch.equal(again.sae.weights.named()[weight], tensor), weight


def test_other_parts_are_other_bits(make_store: Callable[..., Path]) -> None:
    """What a number of parts decides, and so what a cell's key must hold."""
    cells = {
        str(parts): {**TOPK, "micro_batches": parts, "tokens": 64 * 20, "seed": 0}
        for parts in (2, 4)
    }
    alone = train_alone(make_store(), cells, SETTINGS)
    assert alone["2"].sha256 != alone["4"].sha256
    assert (
        Cell.model_validate({**TOPK, "micro_batches": 1}).identity()
        == Cell.model_validate(TOPK).identity()
    )


def test_a_latent_fires_in_a_batch_where_it_fires_in_any_part() -> None:
    cell = Cell(expansion=8, activation="topk", k=1, micro_batches=4)
    x_nd = torch.from_numpy(np.random.default_rng(0).standard_normal((16, 4))).float()
    weights = initial_weights(cell, 4, x_nd, np.random.default_rng(1))
    step = step_of(cell, weights, epsilon=0.0)
    argument: dict[str, Any] = {"lengths": [32], "lambda_": 0.0, "dead_k": None}
    parts = [step.take(part, **argument).code.fired_k() for part in x_nd.split(4)]
    code = MicroBatches(cell, weights, step, ALONE).take(x_nd, **argument).code
    assert torch.equal(code.fired_k(), torch.stack(parts).any(0))
    assert torch.equal(code.fired_k(), step.take(x_nd, **argument).code.fired_k())
    assert not torch.equal(code.fired_k(), torch.stack(parts).all(0))
    assert float(code.l0) == 1.0
