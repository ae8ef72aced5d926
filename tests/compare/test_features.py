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


def sentences_of(*results: Result, about: str) -> list[str]:
    return [sentence for sentence in sentences(results) if sentence.startswith(about)]


NEURONS = result("neurons", {"baseline": "neurons"},
                 {"monosemantic_fraction_alive": (0.05, 0.02, 0.1)})  # fmt: skip


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (
            (0.3, 0.2, 0.4),
            "1 of 1 … above it; not distinguishable: —; below: —",
        ),
        (
            (0.08, 0.06, 0.2),
            "0 of 1 … above it; not distinguishable: a; below: —",
        ),
        (
            (0.0, 0.0, 0.01),
            "0 of 1 … above it; not distinguishable: —; below: a",
        ),
    ],
)
def test_a_cell_beats_a_control_only_where_intervals_are_apart(
    value: tuple[float, float, float], verdict: str
) -> None:
    cell = result("a", TOPK, {"monosemantic_fraction_alive": value})
    (sentence,) = sentences_of(cell, NEURONS, about="monosemantic_fraction_alive: neurons")
    assert verdict.replace("…", "trained cells with several seeds are") in sentence


def test_of_one_seed_no_difference_is_claimed() -> None:
    """Of the cell, of the control, or of one of two architectures."""
    name = "monosemantic_fraction_alive"
    high, low = {name: (0.5, 0.4, 0.6)}, {name: (0.05, 0.02, 0.1)}
    cell, single = result("a", TOPK, high), result("s", MATRYOSHKA, low, spread=None)
    found = sentences_of(cell, single, NEURONS, about=f"{name}: neurons")[0]
    assert "1 of 1 trained cells with several seeds are above it" in found
    assert found.endswith("one seed, nothing claimed: 1.")
    start = {"baseline": "untrained", "activation": "topk", "k": 8, "expansion": 8}
    control = result("start", start, low, spread=None)
    assert sentences_of(cell, control, about=f"{name}: start") == [
        f"{name}: start reaches 0.0500 [0.0200, 0.100] with one seed: no cell is called above or "
        "below it."
    ]
    (found,) = sentences_of(cell, single, about=f"{name} at")
    assert found.endswith(
        "one seed, no difference is claimed: matryoshka-random 0.0500 [0.0200, 0.100]."
    )
    assert "below topk" not in found


def test_seeds_that_lie_apart_are_no_difference() -> None:
    """Wilson's intervals over the latents of all seeds are apart; the seeds themselves are not."""
    name = "monosemantic_fraction_alive"
    for spread, told in ((0.01, True), (0.2, False)):
        a = result("a", TOPK, {name: (0.4, 0.35, 0.45)}, spread)
        b = result("b", MATRYOSHKA, {name: (0.25, 0.2, 0.3)}, spread)
        (found,) = sentences_of(a, b, about=f"{name} at")
        assert ("matryoshka-random 0.250 [0.200, 0.300] below topk" in found) == told


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
