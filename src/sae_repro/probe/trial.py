"""A few steps of every kind of SAE of a study, on a batch of its activations: how long they take.

Times are those of the clock on the wall, on this machine with all that runs beside.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sae_repro.params import Cell, Study, Train, saes_by_name
from sae_repro.params.joint import by_model
from sae_repro.readers.shards import ActivationStore

STEPS = 4
"""Of which the first is not counted: it allocates."""
SAME_TIME = ("seed", "seeds", "hook", "lambda_", "target_l0", "lr", "tokens")
"""Choices that leave the time of a step as it is."""


@dataclass(frozen=True)
class Kind:
    """SAEs whose steps take the same time."""

    names: tuple[str, ...]
    d_sae: int
    seconds: float
    """Of all their trainings on one core, without revivals, which come later."""
    longest: float
    """Seconds of the longest of them."""
    fault: str | None
    """Why the steps were broken off: a loss that is not finite, for one."""


def kinds(study: Study, store: ActivationStore, rows: int, checkpoint: Path) -> Iterator[Kind]:
    """The kinds of trained SAEs of a study, as they are timed; `rows` are its training tokens.

    `checkpoint` is a path that nothing lies at.
    """
    by_kind: dict[str, list[tuple[str, Cell]]] = {}
    for name, cell in saes_by_name(study.cells).items():
        if cell.kind == "trained":
            d_in = store.d_in(by_model(study.hook_of(cell)))
            key = repr((d_in, cell.model_dump(exclude=set(SAME_TIME))))
            by_kind.setdefault(key, []).append((name, cell))
    for saes in by_kind.values():
        yield _kind(study, store, saes, rows, checkpoint)


def _kind(
    study: Study,
    store: ActivationStore,
    saes: Sequence[tuple[str, Cell]],
    rows: int,
    checkpoint: Path,
) -> Kind:
    cell, settings = saes[0][1], study.train
    # random weights take no other time
    hook = by_model(study.hook_of(cell))
    size = min(settings.batch_size, store.activations(hook, "train").rows)
    each, fault = _step_seconds(cell, settings, size, store, hook, study.seed, checkpoint)
    each *= settings.batch_size / size
    steps = [c.steps(settings.batch_size, settings.epochs, rows) for _, c in saes]
    return Kind(
        names=tuple(name for name, _ in saes),
        d_sae=cell.width(store.d_in(hook)),
        seconds=each * sum(steps),
        longest=each * max(steps),
        fault=fault,
    )


def _step_seconds(
    cell: Cell,
    settings: Train,
    size: int,
    store: ActivationStore,
    hook: str,
    seed: int,
    checkpoint: Path,
) -> tuple[float, str | None]:
    """(seconds of a step, what broke the steps off, if anything did)."""
    from sae_repro.training import Diverged, Trainer

    short = cell.model_copy(update={"tokens": STEPS * size})
    each = settings.model_copy(update={"batch_size": size, "log_every": 1})
    ticks: list[float] = []
    fault = None
    trainer = Trainer(short, each, store, hook, seed=seed, checkpoint=checkpoint)
    ticks.append(time.perf_counter())
    try:
        trainer.run(lambda done: ticks.append(time.perf_counter()))
    except Diverged as error:
        fault = str(error)
    taken = [after - before for before, after in pairwise(ticks)]
    return statistics.median(taken[1:] or taken or [0.0]), fault
