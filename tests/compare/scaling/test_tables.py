"""What the tables of scaling laws say of cells whose losses follow a known law."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sae_repro.compare.collect import Result
from sae_repro.compare.scaling.figure import draw_scaling
from sae_repro.compare.scaling.surfaces import FittedSurface, fits
from sae_repro.compare.scaling.tables import write_scaling
from sae_repro.params import read_cells
from sae_repro.params.recipes import families

ENTRY = {
    "activation": "topk",
    "seeds": [0, 1],
    "scaling": {
        "expansion": [2, 4, 8, 16],
        "k": [4, 8, 16],
        "tokens": [50_000, 100_000, 400_000],
    },
}


def fvu(x: float, k: float, t: float) -> float:
    return 0.01 + 0.5 * x**-0.7 + 0.3 * k**-0.8 + 40 * t**-0.5


@pytest.fixture
def cells(write_seeds: Callable[..., Result]) -> list[Result]:
    """Two seeds a cell, 0.2 % apart; one cell failed."""
    rng = np.random.default_rng(0)
    results = []
    for name, cell in read_cells({}, {"law": ENTRY}).items():
        assert cell.k is not None and cell.tokens is not None
        loss = fvu(cell.width(64), cell.k, cell.tokens)
        one = {"l0": float(cell.k), "tokens": cell.tokens}
        failed: dict[str, Any] = {"status": "failed"} if name == "law-x4-k8-tokens-50k" else {}
        seeds = [
            {**one, "fvu": loss * (1 + 0.002 * rng.standard_normal()), "dead": 0, **failed,
             "extra": {"coverage": 0.9 - cell.width(64) / 5000}, "noise": 1}
            for _ in "01"
        ]  # fmt: skip
        results.append(write_seeds(name, cell, seeds))
    return results


@pytest.fixture
def fitted(cells: list[Result]) -> list[FittedSurface]:
    return list(fits(families({"law": ENTRY}), cells, 60, 0))


def test_tables_hold_the_law_and_the_cell_that_it_predicted(
    fitted: list[FittedSurface], tmp_path: Path
) -> None:
    write_scaling(tmp_path, fitted, 60, 0)
    draw_scaling(tmp_path, fitted)
    laws = pd.read_csv(tmp_path / "scaling.csv").query("metric == 'fvu'")
    over_tokens, over_l0 = laws.query("law == 'L(K, T)'"), laws.query("law == 'L(K, L0)'")
    assert list(over_tokens["at"]) == ["k = 4", "k = 8", "k = 16"]
    assert list(over_tokens["cells"]) == [11, 10, 11]
    assert list(over_l0["at"]) == ["400,000 tokens"] and list(over_l0["cells"]) == [11]
    assert "T is tokens seen" in (tmp_path / "scaling.md").read_text()
    write_scaling(tmp_path, fitted, 60, 0, unit="rows")
    assert "T is rows seen" in (tmp_path / "scaling.md").read_text()
    assert list(laws["held_out"]) == [
        *(f"law-x16-k{k}-tokens-400k" for k in (4, 8, 16)), "law-x16-k16-tokens-400k"
    ]  # fmt: skip
    for row in over_tokens.to_dict("records"):
        assert row["beta_low"] < row["beta"] == pytest.approx(0.5, abs=0.1)
        assert row["predicted"] == pytest.approx(row["observed"], rel=0.02)
        assert (row["predicted_low"] <= row["observed"] <= row["predicted_high"]) == (
            row["inside"] == "yes"
        )
    assert (laws["not_converged"] == 0).all()
    assert {f"scaling.{end}" for end in ("png", "svg", "pdf")} <= {
        path.name for path in tmp_path.iterdir()
    }
    residuals = pd.read_csv(tmp_path / "scaling_cells.csv").query("metric == 'fvu'")
    assert residuals["residual"].abs().max() < 0.02


def test_budgets_pay_for_their_width_and_what_never_falls_has_no_law(
    fitted: list[FittedSurface], tmp_path: Path
) -> None:
    write_scaling(tmp_path, fitted, 60, 0)
    budgets = pd.read_csv(tmp_path / "scaling_budgets.csv")
    for _, rows in budgets.groupby("at"):
        known = rows[rows["K"].notna()]
        assert known["operations"].is_monotonic_increasing
        assert known["fvu"].is_monotonic_decreasing
        assert (rows["beyond"] == "yes").sum() == 2
        # 64 (2 K + 8 k) operations a token
        k = int(rows["at"].iloc[0].removeprefix("k = "))
        np.testing.assert_allclose(known["T"] * 64 * (2 * known["K"] + 8 * k), known["operations"])
    laws = pd.read_csv(tmp_path / "scaling.csv").query("metric == 'coverage'")
    assert len(laws) == 4 and (laws["of"] == "1 − coverage").all()
    assert laws["not_identified"].str.contains("no fall with K").all()
    assert laws[["E", "alpha", "predicted"]].isna().all(axis=None)
    assert laws["observed"].notna().all()
    assert set(pd.read_csv(tmp_path / "scaling.csv")["metric"]) == {"fvu", "coverage"}


def test_without_families_nothing_is_written(cells: list[Result], tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    write_scaling(folder, list(fits({}, cells, 60, 0)), 100, 0)
    draw_scaling(folder, [])
    assert not list(folder.iterdir())
