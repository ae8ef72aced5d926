"""Cells made up of metrics alone, for tables and sentences that read nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_repro.compare.collect import Result
from sae_repro.compare.features import CLASSES
from sae_repro.params import Cell

TOPK = {"activation": "topk", "expansion": 8, "k": 8, "revival": "auxk"}
MATRYOSHKA = {
    "activation": "batchtopk", "expansion": 8, "k": 8, "prefixes": "random", "revival": "auxk",
}  # fmt: skip


def result(
    name: str,
    choices: Mapping[str, Any],
    values: Mapping[str, tuple[float, float, float]],
    spread: float | None = 0.001,
) -> Result:
    """A cell with metrics, each a (value, low, high); of three seeds `spread` apart, or of one."""
    counts = {"tokens": 1000, "documents": 20, "latents": 512, "latents_alive": 500}
    seeds = {}
    if spread is not None and choices.get("baseline") not in ("neurons", "pca"):
        choices = {**choices, "seeds": [0, 1, 2]}
        seeds = {
            f"seed-{i}": {"status": "ok", "metrics": {n: v[0] + (i - 1) * spread
                                                      for n, v in values.items()} | {"l0": 8.0}}
            for i in range(3)
        }  # fmt: skip
    return Result(
        name=name,
        cell=Cell.model_validate(choices),
        measured={
            "status": "ok", "hook": "blocks.0.hook_resid_post", "d_in": 64, "d_sae": 512,
            "choices": dict(choices), "metrics": {n: v[0] for n, v in values.items()} | {"l0": 8.0},
            "intervals": {n: list(v[1:]) for n, v in values.items()},
            "counts": counts | {f"latents_{name}": 0 for name in CLASSES},
            **({"seeds": seeds} if seeds else {}),
        },
        trained=Path(), evaluated=Path(),
    )  # fmt: skip
