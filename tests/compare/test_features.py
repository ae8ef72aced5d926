"""Tables of what features mean."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.features import CLASSES, features_table, write_features
from sae_repro.params import Cell

TOPK = {"activation": "topk", "expansion": 8, "k": 8, "revival": "auxk"}


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


def test_tables_hold_values_intervals_and_failed_cells(tmp_path: Path) -> None:
    whole = result("a", TOPK, {"monosemantic_fraction": (0.3, 0.2, 0.4), "coverage": (0.5, 0.4, 1)},
                   spread=None)  # fmt: skip
    failed = Result(
        "b", Cell.model_validate(TOPK),
        {"status": "failed", "reason": "diverged", "metrics": {}, "intervals": {}, "counts": {},
         "hook": "blocks.0.hook_resid_post", "d_in": 64, "d_sae": 512, "choices": TOPK},
        Path(), Path(),
    )  # fmt: skip
    write_features(tmp_path, [whole, failed])
    table = pd.read_csv(tmp_path / "monosemantic.csv")
    assert table["monosemantic_fraction_low"].tolist()[0] == 0.2
    assert table["monosemantic_fraction"].isna().tolist() == [False, True]
    assert "0.500 [0.400, 1.00]" in (tmp_path / "structure.md").read_text()
    assert "hole_rate" not in pd.read_csv(tmp_path / "structure.csv")
    assert features_table([whole], ["coverage"])["coverage_high"].tolist() == [1]


def test_no_table_without_measured_metrics(tmp_path: Path) -> None:
    write_features(tmp_path, [result("a", TOPK, {})])
    assert list(tmp_path.iterdir()) == []
