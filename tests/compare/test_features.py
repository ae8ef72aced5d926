"""Tables and sentences of what features mean: no stronger than their intervals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sae_repro.compare.collect import Result
from sae_repro.compare.features import CLASSES, features_table, sentences, write_features
from sae_repro.params import Cell

TOPK = {"activation": "topk", "expansion": 8, "k": 8, "revival": "auxk"}
MATRYOSHKA = {
    "activation": "batchtopk", "expansion": 8, "k": 8, "prefixes": "random", "revival": "auxk",
}  # fmt: skip


def result(
    name: str, choices: Mapping[str, Any], values: Mapping[str, tuple[float, float, float]]
) -> Result:
    """A cell with metrics, each a (value, low, high)."""
    counts = {"tokens": 1000, "documents": 20, "latents": 512, "latents_alive": 500}
    return Result(
        name=name,
        cell=Cell.model_validate(choices),
        measured={
            "status": "ok", "hook": "blocks.0.hook_resid_post", "d_in": 64, "d_sae": 512,
            "choices": dict(choices), "metrics": {n: v[0] for n, v in values.items()} | {"l0": 8.0},
            "intervals": {n: list(v[1:]) for n, v in values.items()},
            "counts": counts | {f"latents_{name}": 0 for name in CLASSES},
        },
        trained=Path(), evaluated=Path(),
    )  # fmt: skip


def sentences_of(*results: Result, about: str) -> list[str]:
    return [sentence for sentence in sentences(results) if sentence.startswith(about)]


NEURONS = result("neurons", {"baseline": "neurons"},
                 {"monosemantic_fraction_alive": (0.05, 0.02, 0.1)})  # fmt: skip


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        ((0.3, 0.2, 0.4), "1 of 1 trained cells are above it; not distinguishable: —; below: —"),
        ((0.08, 0.06, 0.2), "0 of 1 trained cells are above it; not distinguishable: a; below: —"),
        ((0.0, 0.0, 0.01), "0 of 1 trained cells are above it; not distinguishable: —; below: a"),
    ],
)
def test_a_cell_beats_a_control_only_where_intervals_are_apart(
    value: tuple[float, float, float], verdict: str
) -> None:
    cell = result("a", TOPK, {"monosemantic_fraction_alive": value})
    (sentence,) = sentences_of(cell, NEURONS, about="monosemantic_fraction_alive: neurons")
    assert verdict in sentence


def test_controls_are_not_compared_with_one_another() -> None:
    assert sentences_of(NEURONS, about="monosemantic_fraction_alive") == []


def test_metric_is_not_observed_where_every_interval_contains_zero() -> None:
    none = [result(name, TOPK, {"absorption_rate": (0.01, 0.0, 0.04)}) for name in "ab"]
    assert sentences_of(*none, about="absorption_rate:") == [
        "absorption_rate: not observed; no interval of 2 cells excludes 0."
    ]
    some = result("c", TOPK, {"absorption_rate": (0.2, 0.1, 0.3)})
    (sentence,) = sentences_of(*none, some, about="absorption_rate:")
    assert "above 0 in 1 of 3 cells (c 0.200 [0.100, 0.300])" in sentence


def test_a_negative_rate_is_no_observation() -> None:
    below = result("a", TOPK, {"hole_rate": (-0.2, -0.3, -0.1)})
    assert "not observed" in sentences_of(below, about="hole_rate:")[0]


def test_architectures_are_compared_at_equal_target_l0_alone() -> None:
    values = {"absorption_rate": (0.3, 0.2, 0.4)}
    lower = {"absorption_rate": (0.01, 0.0, 0.1)}
    a, b = result("a", TOPK, values), result("b", MATRYOSHKA, lower)
    (sentence,) = sentences_of(a, b, about="absorption_rate at")
    assert "matryoshka-random 0.0100 [0, 0.100] below topk 0.300 [0.200, 0.400]" in sentence
    other = result("b", MATRYOSHKA | {"k": 16}, lower)
    assert sentences_of(a, other, about="absorption_rate at") == []
    near = result("b", MATRYOSHKA, {"absorption_rate": (0.25, 0.1, 0.35)})
    (sentence,) = sentences_of(a, near, about="absorption_rate at")
    assert sentence.endswith("topk, matryoshka-random not distinguishable.")


def test_tables_hold_values_intervals_and_failed_cells(tmp_path: Path) -> None:
    whole = result("a", TOPK, {"monosemantic_fraction": (0.3, 0.2, 0.4), "coverage": (0.5, 0.4, 1)})
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
