"""What a training took: parts added up, out of all that is compared; sizes by hand."""

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_repro import costs
from sae_repro.autoencoders import initial_weights
from sae_repro.cli.costing import lines_of
from sae_repro.costs import Cost, cost_at, measuring, path_of
from sae_repro.errors import StudyError
from sae_repro.files import write_json
from sae_repro.numerics.random import generator
from sae_repro.params import Cell, Train
from sae_repro.params.axis_labels import ACTIVATION_LABELS
from sae_repro.params.operations import step_operations, trained_parameters
from sae_repro.train.job import CellJob, make_measured
from sae_repro.train.makers import trained

N, D, K = 5, 3, 12
TOPK = Cell(expansion=4, activation="topk", k=2)


@pytest.mark.parametrize("activation", ACTIVATION_LABELS)
def test_parameters_are_the_entries_of_the_trained_tensors(activation: str) -> None:
    cell = Cell(expansion=4, activation=activation, **ACTIVATION_LABELS[activation].example)
    weights = initial_weights(cell, D, torch.zeros(1, D), generator(0, "weights"))
    tensors = weights.named().values()
    assert trained_parameters(cell, D) == sum(tensor.numel() for tensor in tensors)


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoders_parameters_are_of_both_widths(skip: bool) -> None:
    cell = Cell(expansion=4, activation="topk", k=2, target_hook="out", skip=skip)
    rows = torch.zeros(1, D + 7)
    tensors = initial_weights(cell, D, rows, generator(0, "weights")).named().values()
    assert trained_parameters(cell, D, 7) == sum(tensor.numel() for tensor in tensors)
    # encoder and its gradient, decoder and the gradients of it and of z, the same for W_skip
    multiplications = 5 * (3 * 12 + 3 * 2 + 3 * 7 * 2 + (2 * 3 * 7 if skip else 0))
    assert step_operations(cell, D, N, 7) == 2 * multiplications


@pytest.mark.parametrize(
    ("choices", "multiplications"),
    [
        # encoder, then decoder and the gradients of z, W_dec and W_enc: of 12 or of 2 latents
        ({"penalty": "l1", "lambda": 1}, 5 * 3 * 12 + 4 * (5 * 3 * 12)),
        ({"activation": "topk", "k": 2}, 5 * 3 * 12 + 4 * (5 * 3 * 2)),
        ({"activation": "batchtopk", "k": 2, "prefixes": "random"}, 5 * 3 * 12 + 4 * (5 * 3 * 2)),
        ({"activation": "topk", "k": 12, "revival": "auxk"}, 5 * 3 * 12 + 4 * (5 * 3 * 12)),
        # once more the decoder, and the gradient of what it decodes
        ({"activation": "gated", "penalty": "l1", "lambda": 1}, 5 * (5 * 3 * 12) + 2 * 5 * 3 * 12),
        (
            {"activation": "gated", "penalty": "l1", "lambda": 1, "gated_auxiliary": "trained"},
            5 * (5 * 3 * 12) + 3 * 5 * 3 * 12,
        ),
    ],
)
def test_operations_are_those_counted_by_hand(
    choices: dict[str, Any], multiplications: int
) -> None:
    cell = Cell.model_validate({"expansion": 4, **choices})
    assert step_operations(cell, D, N) == 2 * multiplications


class Stopped(Exception):  # noqa: N818
    """A kill, as far as a test in this process can be killed."""


def test_a_resumed_training_adds_up_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(costs.time, "monotonic", lambda: next(now))
    job = CellJob(
        name="a", cell=TOPK, settings=Train(), hook="h", seed=0, key="k", activations=tmp_path,
        store=tmp_path / "cells", checkpoint=tmp_path / "checkpoint", metadata={},
    )  # fmt: skip
    seen: list[int] = []

    def make(stops: bool) -> Callable[..., None]:
        def go(job: CellJob, folder: Path, progress: Callable[[int], None]) -> None:
            progress(7)
            # noted by then: a kill leaves nobody to do it
            noted.append(cost_at(path_of(job.store, "k")))
            if stops:
                raise Stopped

        return go

    noted: list[Cost | None] = []
    monkeypatch.setattr(trained, "make", make(stops=True))
    for parts in (1, 1, 2):  # without a checkpoint the second starts afresh
        with pytest.raises(Stopped):
            make_measured(job, tmp_path, seen.append)
        assert noted[-1] is not None and noted[-1].parts == parts
        if parts == 1 and len(noted) == 2:
            job.checkpoint.touch()
    monkeypatch.setattr(trained, "make", make(stops=False))
    before = cost_at(path_of(job.store, "k"))
    make_measured(job, tmp_path, seen.append)
    after = cost_at(path_of(job.store, "k"))
    assert before is not None and after is not None
    assert after.parts == 3 and after.seconds > before.seconds > noted[0].seconds  # type: ignore[union-attr]
    assert after.device and seen == [7] * 4


@pytest.mark.parametrize("content", ["", "[]", '{"seconds": 1}', '{"a": 1}'])
def test_a_damaged_note_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "costs/k.json"
    path.parent.mkdir()
    path.write_text(content)
    assert cost_at(path) is None
    with measuring(path, "cpu", resumes=True):
        pass
    found = cost_at(path)
    assert found is not None and found.parts == 1


def test_the_recorded_costs_are_those_measured_here(tmp_path: Path) -> None:
    params = (Path(__file__).resolve().parents[1] / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params)
    with pytest.raises(StudyError, match="no SAE is trained"):
        [*lines_of(tmp_path, record=False)]
    for name in ("topk-x8-k16/seed-0", "topk-x8-k16/seed-1", "vanilla-x4-l1em2"):
        choices = {"expansion": 8, "activation": "topk", "k": 16}
        folder = tmp_path / "artifacts/train" / name
        folder.mkdir(parents=True)
        write_json(folder / "train.json", {
            "key": name.replace("/", "-"), "status": "failed" if name[0] == "v" else "ok",
            "hook": "h", "d_in": 64, "d_sae": 512, "steps": 1000, "choices": choices,
            "train": {"batch_size": 512},
        })  # fmt: skip
    with pytest.raises(StudyError, match="none of these trainings was measured"):
        [*lines_of(tmp_path, record=True)]
    cost = Cost(seconds=4.0, cpu_seconds=3.5, parts=1, device="a GPU")
    store = tmp_path / ".sae-repro/cells"
    write_json(path_of(store, "topk-x8-k16-seed-1"), dataclasses.asdict(cost))
    table, said = lines_of(tmp_path, record=True)
    assert "128,000" in table and "a GPU" in table and len(table.splitlines()) == 4
    assert said.endswith("costs.csv: 1 trainings")
    with (tmp_path / "reports/costs.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["sae"], row["tokens_per_second"]) == ("topk-x8-k16/seed-1", "128000")
    # 2 · 512 · 64 · (512 + 4 · 16), and 2 · 64 · 512 + 512 + 64
    assert (row["flops_per_step"], row["parameters"]) == ("37748736", "66112")
    assert row["torch"] and row["system"] and row["bits"] == "portable"
