"""Tables and sentences of what features mean: no stronger than their intervals."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sae_repro.compare.collect import Result
from sae_repro.compare.common_pairs import common_pairs
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
    return [sentence for sentence in sentences(results, 0) if sentence.startswith(about)]


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
        "absorption_rate: not observed above 0 in any cell (all 2 tested together, 5 % false "
        "discoveries)."
    ]
    some = result("c", TOPK, {"absorption_rate": (0.2, 0.19, 0.21)})
    (sentence,) = sentences_of(*none, some, about="absorption_rate:")
    assert "above 0 in 1 of 3 cells" in sentence
    assert "discoveries): c 0.200 [0.190, 0.210]; in the others" in sentence


def test_an_interval_that_barely_excludes_zero_is_no_observation_among_many() -> None:
    cells = [result(f"n{i}", TOPK, {"absorption_rate": (0.01, 0.0, 0.04)}) for i in range(9)]
    barely = result("c", TOPK, {"absorption_rate": (0.2, 0.01, 0.39)})
    (alone,) = sentences_of(barely, about="absorption_rate:")
    assert "above 0 in 1 of 1 cells" in alone
    (among,) = sentences_of(barely, *cells, about="absorption_rate:")
    assert "not observed above 0 in any cell" in among
    assert "1 more by their own intervals alone" in among


def test_a_negative_rate_is_no_observation() -> None:
    below = result("a", TOPK, {"hole_rate": (-0.2, -0.3, -0.1)})
    assert "not observed" in sentences_of(below, about="hole_rate:")[0]


def with_pairs(folder: Path, cell: Result, rates: Mapping[str, list[float | None]]) -> Result:
    """The cell with pairs.parquet per seed: of each child its rate; None where not testable."""
    for i, seed in enumerate(cell.cell.members()):
        there = folder / cell.name / seed
        there.mkdir(parents=True)
        rows = [
            {"parent": f"p{int(child[1:]) // 2}", "child": child, "silence": silence,
             "status": "low recall" if of[i] is None else "testable",
             "hole_rate": of[i], "absorption": of[i]}
            for child, of in rates.items() for silence in ("zero", "faint")
        ]  # fmt: skip
        pd.DataFrame(rows).astype({"hole_rate": float, "absorption": float}).to_parquet(
            there / "pairs.parquet"
        )
        (there / "metrics.json").write_text('{"status": "ok", "metrics": {}, "intervals": {}}')
    return replace(cell, evaluated=folder / cell.name)


def test_architectures_are_compared_at_equal_target_l0_and_on_common_pairs(tmp_path: Path) -> None:
    """Over its own pairs b is far better; over those that a can be asked, too, they are alike."""
    high, low = {"absorption_rate": (0.5, 0.4, 0.6)}, {"absorption_rate": (0.1, 0.09, 0.11)}
    easy = {f"c{i}": [0.001, 0.002, 0.003] for i in range(4, 10)}
    hard = {f"c{i}": [0.5, 0.51, 0.49] for i in range(4)}
    a = with_pairs(tmp_path, result("a", TOPK, high),
                   hard | {child: [None, 0.0, 0.0] for child in easy})  # fmt: skip
    b = with_pairs(tmp_path, result("b", MATRYOSHKA, low), hard | easy)
    (sentence,) = sentences_of(a, b, about="absorption_rate at")
    assert "over the 4 pairs testable in all: topk, matryoshka-random not dist" in sentence
    c = with_pairs(tmp_path, result("c", MATRYOSHKA, low),
                   {child: [0.1, 0.11, 0.12] for child in hard} | easy)  # fmt: skip
    (sentence,) = sentences_of(a, c, about="absorption_rate at")
    assert "matryoshka-random 0.110 [0, 0.235] below topk 0.500 [0.375, 0.625]" in sentence
    write_features(tmp_path / "tables", [a, c], 0)
    table = pd.read_csv(tmp_path / "tables/structure_common.csv")
    assert table["common"].tolist() == [4, 4] and table["any"].tolist() == [10, 10]
    assert table["value"].tolist() == pytest.approx([0.5, 0.11])
    other = result("b", MATRYOSHKA | {"k": 16}, low)
    assert sentences_of(a, other, about="absorption_rate at") == []
    none = with_pairs(tmp_path / "none", b, {"c0": [0.0, None, 0.0]})
    (sentence,) = sentences_of(a, none, about="absorption_rate at")
    assert sentence.endswith("nothing is testable in all 2 cells.")


def test_one_sae_has_an_interval_over_parents(tmp_path: Path) -> None:
    name = "absorption_rate"
    rates = {f"c{i}": [0.1 * (i % 5)] for i in range(12)}
    one = with_pairs(tmp_path, result("a", TOPK, {name: (0.2, 0.1, 0.3)}, spread=None), rates)
    common = common_pairs([one], ["a"], name, 0)
    estimate = common.estimates["a"]
    assert common.units == common.of == 12
    assert estimate.value == pytest.approx(np.mean([rate for (rate,) in rates.values()]))
    assert estimate.interval[0] < estimate.value < estimate.interval[1]
    assert not estimate.known
    few = {f"c{i}": [0.1 * i] for i in range(8)}  # four parents
    few_parents = with_pairs(tmp_path / "few", one, few)
    assert np.isnan(common_pairs([few_parents], ["a"], name, 0).estimates["a"].interval[0])


def test_tables_hold_values_intervals_and_failed_cells(tmp_path: Path) -> None:
    whole = result("a", TOPK, {"monosemantic_fraction": (0.3, 0.2, 0.4), "coverage": (0.5, 0.4, 1)},
                   spread=None)  # fmt: skip
    failed = Result(
        "b", Cell.model_validate(TOPK),
        {"status": "failed", "reason": "diverged", "metrics": {}, "intervals": {}, "counts": {},
         "hook": "blocks.0.hook_resid_post", "d_in": 64, "d_sae": 512, "choices": TOPK},
        Path(), Path(),
    )  # fmt: skip
    write_features(tmp_path, [whole, failed], 0)
    table = pd.read_csv(tmp_path / "monosemantic.csv")
    assert table["monosemantic_fraction_low"].tolist()[0] == 0.2
    assert table["monosemantic_fraction"].isna().tolist() == [False, True]
    assert "0.500 [0.400, 1.00]" in (tmp_path / "structure.md").read_text()
    assert "hole_rate" not in pd.read_csv(tmp_path / "structure.csv")
    assert features_table([whole], ["coverage"])["coverage_high"].tolist() == [1]


def test_no_table_without_measured_metrics(tmp_path: Path) -> None:
    write_features(tmp_path, [result("a", TOPK, {})], 0)
    assert list(tmp_path.iterdir()) == []
