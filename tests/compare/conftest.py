"""Cells as `train` and `evaluate` leave them, with given numbers."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sae_repro.compare.collect import Result
from sae_repro.evaluate.over_seeds import over_seeds
from sae_repro.numerics.intervals import wilson
from sae_repro.params import Cell

N_DOCUMENTS, PER = 60, 50


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Result]:
    """Writes what `train` and `evaluate` leave of one cell, with the given numbers."""

    def go(
        name: str, cell: Cell, *, l0: float = 10.0, fvu: float = 0.1, dead: int = 0,
        status: str = "ok", noise: int = 0, fidelity: bool = True, tokens: int | None = None,
        extra: Mapping[str, float] | None = None,
    ) -> Result:  # fmt: skip
        trained = tmp_path / "artifacts/train" / name
        evaluated = tmp_path / "artifacts/evaluate" / name
        trained.mkdir(parents=True)
        evaluated.mkdir(parents=True)
        k = cell.width(64)
        common = {"cell": name, "status": status, "hook": cell.hook or "blocks.1.hook_resid_post",
                "d_in": 64, "d_sae": k, "unreached": [],
                "choices": {**cell.model_dump(mode="json", by_alias=True), "tokens": tokens},
                }  # fmt: skip
        training = {"train": {"batch_size": 32}, "steps": 6, "tokens": tokens or 1000}
        (trained / "train.json").write_text(json.dumps(training))
        (trained / "metrics.jsonl").write_text(
            '{"step":0,"fvu":1.0,"l0":9.0,"dead":0}\n{"step":5,"fvu":0.5,"l0":8.0,"dead":1}\n'
            if status == "ok" else ""
        )  # fmt: skip
        if status != "ok":
            measured = {**common, "reason": "the loss is not finite from step 7 on", "metrics": {},
                        "counts": {}, "intervals": {}}  # fmt: skip
        else:
            metrics = {
                "l0": l0, "fvu": fvu, "dead_fraction_never": dead / k,
                "dead_fraction_below": dead / k, "ce_recovered_zero": 0.9 if fidelity else None,
                "kl": 0.1, "cosine": 0.9, "density_median": 0.01, "relative_norm": 0.9,
                **(extra or {}),
            }  # fmt: skip
            interval = list(wilson(dead, k))
            measured = {
                **common,
                "metrics": metrics,
                "counts": {"tokens": N_DOCUMENTS * PER, "documents": N_DOCUMENTS, "latents": k,
                           "latents_alive": k - dead, "fidelity_tokens": 99},
                "intervals": {"dead_fraction_never": interval, "dead_fraction_below": interval},
            }  # fmt: skip
            rng = np.random.default_rng(noise)
            wobble = 1 + 0.2 * rng.standard_normal(N_DOCUMENTS)
            error = fvu * PER * wobble / wobble.mean()
            pd.DataFrame(
                {"document": np.arange(N_DOCUMENTS), "tokens": PER, "l0_sum": l0 * PER,
                 "squared_error": error, "total_variance": float(PER)}
            ).to_parquet(evaluated / "documents.parquet")  # fmt: skip
            logs = np.where(np.arange(k) < dead, np.nan, -2.0)
            pd.DataFrame(
                {"log10_density": logs, "max_activation": np.where(np.arange(k) < dead, 0.0, 0.5)}
            ).to_parquet(evaluated / "latents.parquet")
        (evaluated / "metrics.json").write_text(json.dumps(measured))
        return Result(name, cell, measured, trained, evaluated)

    return go


@pytest.fixture
def write_seeds(write: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    """Writes what is left of a cell with several seeds, from each seed's own numbers."""

    def go(name: str, cell: Cell, per_seed: list[dict[str, Any]]) -> Result:
        for (place, member), numbers in zip(cell.members().items(), per_seed, strict=True):
            write(f"{name}/{place}", member, **numbers)
        folder = tmp_path / "artifacts/evaluate" / name
        read = {place: json.loads((folder / place / "metrics.json").read_text()) | {"key": place}
                for place in cell.members()}  # fmt: skip
        for one in read.values():
            one["activation"] = one["choices"]["activation"]
        measured = over_seeds(read)
        (folder / "metrics.json").write_text(json.dumps(measured))
        return Result(name, cell, measured, tmp_path / "artifacts/train" / name, folder)

    return go
