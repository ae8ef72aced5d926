"""Tables of what features mean."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sae_repro.compare.collect import Result
from sae_repro.compare.common_pairs import common_pairs
from sae_repro.compare.differences import DIFFERENT, NOT_DISTINGUISHABLE, verdict
from sae_repro.compare.features import features_table, write_features
from sae_repro.params import Cell

from .results import MATRYOSHKA, TOPK, result


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


def test_cells_are_compared_on_common_pairs(tmp_path: Path) -> None:
    """Over its own pairs b is far better; over those that a can be asked, too, they are alike."""
    high, low = {"absorption_rate": (0.5, 0.4, 0.6)}, {"absorption_rate": (0.1, 0.09, 0.11)}
    easy = {f"c{i}": [0.001, 0.002, 0.003] for i in range(4, 10)}
    hard = {f"c{i}": [0.5, 0.51, 0.49] for i in range(4)}
    a = with_pairs(tmp_path, result("a", TOPK, high),
                   hard | {child: [None, 0.0, 0.0] for child in easy})  # fmt: skip
    b = with_pairs(tmp_path, result("b", MATRYOSHKA, low), hard | easy)
    alike = common_pairs([a, b], ["a", "b"], "absorption_rate", 0)
    assert (alike.units, alike.of) == (4, 10)
    assert verdict(alike.estimates["a"], alike.estimates["b"]) == NOT_DISTINGUISHABLE
    c = with_pairs(tmp_path, result("c", MATRYOSHKA, low),
                   {child: [0.1, 0.11, 0.12] for child in hard} | easy)  # fmt: skip
    apart = common_pairs([a, c], ["a", "c"], "absorption_rate", 0).estimates
    assert verdict(apart["a"], apart["c"]) == DIFFERENT
    write_features(tmp_path / "tables", [a, c], 0)
    table = pd.read_csv(tmp_path / "tables/structure_common.csv")
    assert table["common"].tolist() == [4, 4] and table["any"].tolist() == [10, 10]
    assert table["value"].tolist() == pytest.approx([0.5, 0.11])
    none = with_pairs(tmp_path / "none", b, {"c0": [0.0, None, 0.0]})
    nothing = common_pairs([a, none], ["a", "b"], "absorption_rate", 0)
    assert nothing.units == 0 and nothing.estimates == {}


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
