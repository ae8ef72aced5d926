"""Training steps, timed in turn: reports/benchmarks/steps.csv, steps.md."""

from pathlib import Path
from typing import Any

import pytest

from sae_repro.numerics.kernels import in_use

from .rounds import WARM_UP, Rounds
from .shapes import SHAPES, activations, store_of
from .steps import GEMM, GROUPS, batches_of, gemm, step_of
from .tables import machine_of, renew, wide, write_page

ROUNDS = {"root": 40, "S": 25, "M": 12, "L": 10}
REPEATS = {"root": 5}
CASES = [
    (size, group) for size in SHAPES for group in GROUPS if group != "further" or size == "root"
]


@pytest.mark.parametrize(("size", "group"), CASES)
def test_steps(size: str, group: str, benchmark: Any, tmp_path: Path) -> None:
    """A round has one step of each kind, and the encoder product, on the same batch."""
    shape = SHAPES[size]
    store = store_of(activations(shape), tmp_path)
    steps = {
        GEMM: gemm(shape),
        **{name: step_of(name, choices, shape, store) for name, choices in GROUPS[group].items()},
    }
    rounds = Rounds(steps, batches_of(store, shape), REPEATS.get(size, 1))
    benchmark.pedantic(rounds.turn, rounds=ROUNDS[size], warmup_rounds=WARM_UP)
    machine = machine_of(in_use() or "native")
    at = {"size": size, "D": shape.d, "K": shape.k_all, "batch": shape.batch, "k": shape.k}
    rows = [{**at, "group": group, **row, **machine} for row in rounds.rows()]
    table = renew("steps", rows, ["size", "group", "bits"])
    order = [*SHAPES]
    shown = table[table["step"] != GEMM].sort_values("size", key=lambda s: s.map(order.index),
                                                    kind="stable")  # fmt: skip
    sizes = "\n".join(f"- {name}: {each}" for name, each in SHAPES.items())
    write_page(
        "steps",
        "Training steps",
        f"Median CPU time of a training step over that of the bare encoder product x·W_enc in the "
        f"same process, with quartiles; one thread, fp32, in turn on the same batches, "
        f"{ROUNDS['L']} to {ROUNDS['root']} rounds. A step is loss, gradient, clipping, Adam, unit "
        f"rows and clocks. steps.csv has the times.\n\n{sizes}\n\n"
        + wide(shown, down=["step"], across="size"),
        table,
    )
