"""Tables over activations: κ by quantile, dead latents by threshold."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sae_repro.compare.by_activation import write_by_quantile, write_dead_curve
from sae_repro.compare.collect import Result
from sae_repro.params import Cell

CELL = {"activation": "topk", "expansion": 1, "k": 8}
KAPPAS = [f"kappa_{b}" for b in range(1, 6)]


def scored(result: Result, weak: float, place: str = ".") -> Result:
    """The cell with six latents whose weakest fifth scores about `weak`, and what counts nowhere.

    These are a latent without weak activations, a rare one and a dense one.
    """
    kappas = np.tile([weak, 0.6, 0.7, 0.8, 0.9], (9, 1))
    kappas[:6, 0] += np.linspace(-0.05, 0.05, 6)
    kappas[6, 0] = np.nan
    kinds = ["monosemantic-complete"] * 3 + ["polysemantic"] * 4 + ["rare", "dense"]
    frame = pd.DataFrame(kappas, columns=KAPPAS).assign(**{"class": kinds})
    frame.to_parquet(result.evaluated / place / "monosemantic.parquet")
    metrics = {**result.measured["metrics"], "monosemantic_fraction": 0.3}
    return replace(result, measured={**result.measured, "metrics": metrics})


def test_kappa_by_quantile(write: Callable[..., Result], tmp_path: Path) -> None:
    one = scored(write("a", Cell.model_validate(CELL)), 0.2)
    write_by_quantile(tmp_path, [one], 0)
    table = pd.read_csv(tmp_path / "monosemantic_by_quantile.csv").set_index("group")
    assert table["latents"].to_dict() == {"scored": 6, "monosemantic": 3}
    assert table.loc["scored", KAPPAS].tolist() == pytest.approx([0.2, 0.6, 0.7, 0.8, 0.9])
    assert table.loc["scored", "difference"] == pytest.approx(0.7)
    assert 0.6 < table.loc["scored", "low"] < 0.7 < table.loc["scored", "high"] < 0.8
    assert np.isnan(table.loc["monosemantic", "low"])  # three latents


def test_the_interval_of_several_seeds_is_over_these(
    write_seeds: Callable[..., Result], tmp_path: Path
) -> None:
    cell = Cell.model_validate({**CELL, "seeds": [0, 1]})
    both = write_seeds("b", cell, [{}, {}])
    for weak, place in ((0.2, "seed-0"), (0.4, "seed-1")):
        both = scored(both, weak, place)
    write_by_quantile(tmp_path, [both], 0)
    row = pd.read_csv(tmp_path / "monosemantic_by_quantile.csv").iloc[0]
    assert row["latents"] == 12
    assert row["difference"] == pytest.approx(0.6)
    assert row["low"] < 0 < 1.2 < row["high"]  # Student's of two seeds .2 apart


def test_dead_by_threshold(
    write: Callable[..., Result], write_seeds: Callable[..., Result], tmp_path: Path
) -> None:
    two = Cell.model_validate({**CELL, "seeds": [0, 1]})
    results = [
        write("a", Cell.model_validate(CELL), dead=16),
        write_seeds("b", two, [{"dead": 0}, {"dead": 32}]),
        write("failed", Cell.model_validate({**CELL, "k": 9}), status="failed"),
    ]
    write_dead_curve(tmp_path, results)
    table = pd.read_csv(tmp_path / "dead_curve.csv").set_index("cell")
    assert table["never"].to_dict() == table["0.3"].to_dict() == {"a": 0.25, "b": 0.25}
    assert table["1"].tolist() == [1, 1]
    write_by_quantile(tmp_path / "none", results, 0)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("hook", "unit"), [("activations", "row"), ("blocks.1.hook_resid_post", "token")]
)
def test_rows_of_given_activations_are_not_called_tokens(
    write: Callable[..., Result], tmp_path: Path, hook: str, unit: str
) -> None:
    one = scored(write("a", Cell.model_validate({**CELL, "hook": hook})), 0.2)
    write_by_quantile(tmp_path, [one], 0)
    write_dead_curve(tmp_path, [one])
    text = (tmp_path / "monosemantic_by_quantile.md").read_text()
    assert f"the fraction of its {unit}s that carry" in text
    assert f"latents with {unit}s in the first" in text
    dead = (tmp_path / "dead_curve.md").read_text()
    assert f"never: that fire on no {unit}." in dead
    assert ("token" in text + dead) == (unit == "token")
