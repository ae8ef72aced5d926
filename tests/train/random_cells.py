"""Random valid cells, extreme values among them: what params.yaml accepts, however foolish."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from sae_repro.errors import StudyError
from sae_repro.params import Cell, check_section
from sae_repro.params.axes import AXES, readers
from sae_repro.params.cell_rules import width_faults

EXTREMES = (1e-300, 1e-40, 1e-30, 1e-12, 1e-3, 0.1, 1.0, 3.0, 300.0, 1e9, 1e30, 1e38, 1e300)

VALUES: dict[str, tuple[Any, ...]] = {
    "expansion": (1 / 8, 1 / 4, 1.0, 3.0, 16.0),
    "k": (1, 2, 3, 8, 128),
    "lambda": EXTREMES,
    "lr": EXTREMES,
    "adam_eps": EXTREMES,
    "grad_clip": (None, *EXTREMES),
    "auxk_coefficient": EXTREMES,
    "target_l0": (1e-300, 1e-9, 0.5, 3.0, 8.0, 100.0),
    "jumprelu_bandwidth": (1e-300, 1e-30, 1e-3, 0.5, 0.999),
    "prefix_alpha": (1e-300, 1e-3, 0.5, 1.0, 30.0, 1e3, 1e300),
    "n_prefixes": (2, 3, 10, 10**6),
    "prefix_shares": ((1.0,), (0.5, 0.5), (0.125, 0.875)),
    "prefix_k": ((1,), (1, 3), (2, 8)),
    "prefix_weights": ((1e-30,), (1e38, 1e-3), (1.0, 2.0, 3.0)),
    "resample_every": (1, 2, 7, 15),
    "resample_until": (0.5, 0.8, 1.0),
    "resample_tokens": (1, 50, 10**6),
    "resample_bias": (None, -1e300, -0.05, 0.0, 1e38),
    "dead_tokens": (1, 64, 500, 1000),
    "lambda_warmup": (0.0, 1e-300, 0.3, 1.0),
    "lr_warmup": (0.0, 1e-300, 0.05, 1.0),
    "lr_decay": (0.0, 1e-300, 0.2, 1.0),
    "reconstruction": ("mean", "sum"),
    "decoder": ("unit_norm", "free"),
    "normalisation": ("none", "expected_norm"),
    "b_dec_init": ("geometric_median", "mean", "zero"),
    "apply_b_dec_to_input": (True, False),
    "order": ("none", "contribution"),
    "seeds": ([0, 1],),
}
"""Values of the keys of a cell, beside those of the four axes."""


def random_cell(rng: np.random.Generator, hooks: tuple[str, ...]) -> dict[str, Any]:
    """Random choices, keys that its axes don't read left out; valid or not."""
    if rng.random() < 0.1:
        baseline = str(rng.choice(["neurons", "pca"]))
        return {"baseline": baseline, "hook": str(rng.choice(hooks))}
    cell: dict[str, Any] = {axis: str(rng.choice([*rows])) for axis, rows in AXES.items()}
    for key, values in VALUES.items():
        field = {"lambda": "lambda_"}.get(key, key)
        read_by = readers(field)
        if read_by is not None and cell[read_by[0]] not in read_by[1]:
            continue
        usual = key in ("expansion", "k", "lambda")
        if usual or rng.random() < 0.25:
            cell[key] = values[rng.integers(len(values))]
    return cell | {"hook": str(rng.choice(hooks))}


def random_cells(
    rng: np.random.Generator, hooks: tuple[str, ...], d_in: int, steps: int
) -> Iterator[dict[str, Any]]:
    """Random distinct cells that the schema accepts for `d_in` dimensions and so many steps."""
    seen: list[dict[str, Any]] = []
    while True:
        choices = random_cell(rng, hooks)
        try:
            cell = check_section(Cell, choices)
        except StudyError:
            continue
        idle = cell.resamples and cell.resample_every > cell.resample_until * steps
        if choices in seen or idle or any(width_faults(cell, d_in)):
            continue
        seen.append(choices)
        yield choices
