"""What counts as diverged: a batch's error beside what predicting zero gets wrong on that batch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_repro.params import Cell, Train
from sae_repro.readers.shards import ActivationStore
from sae_repro.training.steps import Taken
from sae_repro.training.steps.codes import HostCode
from sae_repro.training.trainer import Trainer
from sae_repro.training.watch import COLLAPSED_STEPS, EXPLODED, Diverged, Watch

HOOK, D, BATCH = "blocks.0.hook_resid_post", 8, 64
SETTINGS = Train(batch_size=BATCH, log_every=10)
COMMON: dict[str, Any] = {"expansion": 4, "lr": 3e-3}
CELLS = {
    "matryoshka-fixed": {"activation": "batchtopk", "k": 3, "prefixes": "fixed"},
    "matryoshka-random": {"activation": "batchtopk", "k": 3, "prefixes": "random"},
    "jumprelu-l0": {"activation": "jumprelu", "penalty": "l0", "lambda": 1e-3},
    "jumprelu-quadratic": {"activation": "jumprelu", "penalty": "l0_quadratic", "lambda": 0.1,
                           "target_l0": 4},
}  # fmt: skip
RELU = Cell(expansion=4, penalty="l1", lambda_=1e-2)


def note_all(watch: Watch, errors: Sequence[float], batches: Sequence[torch.Tensor]) -> int | None:
    """The step of the fault that the watch names, if any."""
    for step, (error, x_nd) in enumerate(zip(errors, batches, strict=True)):
        taken = Taken(error, {"reconstruction": error}, lambda: 0.0, HostCode(x_nd))
        watch.note(step, taken, 3.0, x_nd)
    fault = watch.fault()
    return None if fault is None else fault[0]


@given(
    st.lists(st.tuples(st.floats(1e-3, 1e4), st.floats(0.0, 100.0)), min_size=1, max_size=12),
    st.sampled_from(["mean", "sum"]),
)
def test_the_first_batch_that_is_far_worse_than_zero_is_named(
    steps: list[tuple[float, float]], reduction: str
) -> None:
    """Of batches of any norm, against the definition; one of small ones counts as usual."""
    cell = RELU.model_copy(update={"reconstruction": reduction})
    usual = 1.0 if reduction == "mean" else float(D)
    batches = [torch.full((BATCH, D), norm) for _, norm in steps]
    powers = [max(usual * norm**2, usual) for _, norm in steps]
    errors = [error * usual for error, _ in steps]
    watch = Watch(cell, SETTINGS, len(steps) + 1, usual)
    limit = EXPLODED * max(errors[0] / powers[0], 1.0)
    ratios = [error / power / limit for error, power in zip(errors, powers, strict=True)]
    expected = next((n for n, ratio in enumerate(ratios) if ratio > 1.0), None)
    if all(abs(ratio - 1.0) > 1e-5 for ratio in ratios):
        assert note_all(watch, errors, batches) == expected


def starved_from(cell: Cell, first: int, steps: int) -> tuple[int, int] | None:
    """The fault of a training in which nothing fires from step `first` on."""
    watch, x_nd = Watch(cell, SETTINGS, steps, 1.0), torch.ones(BATCH, D)
    for step in range(steps):
        taken = Taken(0.5, {"reconstruction": 0.5}, lambda: 0.0, HostCode(x_nd))
        watch.note(step, taken, 0.0 if step >= first else 3.0, x_nd)
    return watch.fault()


@pytest.mark.parametrize(
    ("revival", "waits"),
    [
        ({}, 0),
        ({"revival": "resample", "resample_every": 7}, 7),
        ({"revival": "auxk", "dead_tokens": 2 * BATCH}, 2),
        ({"revival": "auxk", "dead_tokens": 2 * BATCH + 1}, 3),
    ],
)
def test_a_starved_cell_is_given_the_time_that_revival_takes(
    revival: dict[str, Any], waits: int
) -> None:
    cell = RELU.model_validate(RELU.identity() | revival)
    collapsed = 2
    assert starved_from(cell, 5, 100) == (5 + COLLAPSED_STEPS + waits - 1, collapsed)
    # behind the last step nothing is left to wait for
    assert starved_from(cell, 99, 100) == (99, collapsed)
    assert starved_from(cell, 100, 100) is None


@pytest.fixture
def trainer(make_store: Callable[..., Path], sparse_rows: Any, tmp_path: Path) -> Any:
    def make(cell: Cell, *, massive: int = 0) -> Trainer:
        """On 4,096 activations, every one in `massive` of them 100 times as large."""
        rows = sparse_rows(4096, D, 1)
        if massive:
            rows[::massive] *= 100
        store = ActivationStore(make_store(train=rows.astype(np.float32), d_in=D))
        return Trainer(cell, SETTINGS, store, HOOK, seed=0, checkpoint=tmp_path / "none")

    return make


@pytest.mark.parametrize("massive", [64, 1024, 4096])
@pytest.mark.parametrize("name", CELLS)
def test_massive_activations_in_a_batch_are_no_divergence(
    name: str, massive: int, trainer: Callable[..., Trainer]
) -> None:
    """As they pass with extract.norm_limit: null; nearly all of a batch's error may be theirs."""
    trained = trainer(Cell.model_validate(COMMON | CELLS[name]), massive=massive).run()
    assert len(trained.journal.metrics) == 8


@pytest.mark.parametrize("lr", [1.0, 10.0])
@pytest.mark.parametrize("name", CELLS)
def test_a_diverging_cell_is_stopped_at_the_step_where_its_error_explodes(
    name: str, lr: float, trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On batches alike, that where it exceeds ten times the average power and the first step's."""
    errors: list[float] = []
    note = Watch.note

    def recording(self: Watch, step: int, taken: Taken, *rest: Any) -> None:
        errors.append(float(taken.terms["reconstruction"]))
        note(self, step, taken, *rest)

    monkeypatch.setattr(Watch, "note", recording)
    run = trainer(Cell.model_validate(COMMON | CELLS[name] | {"lr": lr}))
    power = (run.store.rms(HOOK) * run.scale) ** 2 / D
    try:
        run.run()
        named = None
    except Diverged as failure:
        named = str(failure)
    limit = EXPLODED * max(errors[0], power)
    expected = next((n for n, error in enumerate(errors) if error > limit), None)
    if expected is None:
        assert named is None or "diverged" not in named
    else:
        assert named is not None
        assert f"diverged: the squared error is over {EXPLODED} times" in named
        assert f"from step {expected} on" in named
