"""Steering on the page: conditions side by side, each over random directions."""

from pathlib import Path

import pandas as pd

from sae_repro.report.parts import Maker
from sae_repro.report.steered import steering_section


def _row(role: str, condition: str, difference: float | None) -> dict[str, object]:
    low, high = (None, None) if difference is None else (difference - 0.1, difference + 0.1)
    return {"cell": "topk", "concept": "name", "role": role, "condition": condition,
            "share": 0.1, "difference": difference, "low": low, "high": high}  # fmt: skip


def test_a_row_per_place_with_each_condition_and_its_interval(tmp_path: Path) -> None:
    rows = [
        _row("current", "unsteered", None),
        _row("current", "random direction", 0.01),
        _row("current", "latent", -0.25),
        _row("next", "latent", 0.25),
        _row("next", "prompt", None),
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "steering.csv", index=False)
    (tmp_path / "steering.md").write_text("# Steering\n\nHow.\n\n| a |\n|---|\n")
    section = steering_section(tmp_path, Maker(tmp_path))
    [table] = section.tables
    texts = [[value.text for value in row] for row in table.rows]
    assert texts == [
        ["topk", "name", "on its words", "-0.25"],
        ["topk", "name", "on the token before them", "0.25"],
    ]
    assert table.rows[1][-1].interval == "[0.15, 0.35]"
    assert [run.text for run in section.method[0]] == ["How."]


def test_a_study_that_steers_nothing_has_no_such_section(tmp_path: Path) -> None:
    assert steering_section(tmp_path, Maker(tmp_path)).empty
