"""The files behind `dvc metrics` and `dvc plots`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sae_repro.compare.collect import Result
from sae_repro.compare.dvc_views import POINTS, write_metric_files, write_plot_tables
from sae_repro.params import Cell
from sae_repro.params.appearance import look

Make = Callable[..., Result]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A cell's result as `evaluate` and `train` leave it, with `rows` in its journal."""

    def go(name: str, cell: Cell, *, rows: int = 100, **metrics: Any) -> Result:
        folder = tmp_path / "cells" / name
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(
            "".join(
                json.dumps({"step": 10 * i, "fvu": 1 / (i + 1), "l0": 4.0, "dead": i}) + "\n"
                for i in range(rows)
            )
        )
        measured = {
            "status": "failed" if metrics.pop("failed", False) else "ok",
            "hook": "blocks.0.hook_resid_post",
            "d_in": 4,
            "d_sae": 16,
            "choices": cell.model_dump(mode="json", by_alias=True),
            "metrics": {"l0": 3.0, "fvu": 0.25, "cosine_spread": 0.1, **metrics},
            "intervals": {"fvu": [0.2, 0.3]},
            "counts": {},
        }
        return Result(name, cell, measured, folder, folder)

    return go


TOPK = Cell(expansion=4, activation="topk", k=3)
VANILLA = Cell(expansion=4, penalty="l1", lambda_=1e-2)


def test_a_finished_cell_has_a_file_of_the_headline_metrics(make: Make, tmp_path: Path) -> None:
    results = [make("a", TOPK, kl=None), make("bad", TOPK, failed=True)]
    write_metric_files(tmp_path / "metrics", results)
    assert [path.name for path in (tmp_path / "metrics").iterdir()] == ["a.json"]
    entry = json.loads((tmp_path / "metrics/a.json").read_text())
    assert entry == {
        "l0": 3.0,
        "fvu": 0.25,
    }  # neither what was not measured nor what is no headline


def test_plots_have_trained_cells_in_the_colour_of_their_architecture(
    make: Make, tmp_path: Path
) -> None:
    results = [
        make("v", VANILLA),
        make("t", TOPK),
        make("bad", TOPK, failed=True),
        make("pca", Cell(baseline="pca")),
        make("random", TOPK.model_copy(update={"baseline": "untrained"})),
    ]
    write_plot_tables(tmp_path, results)
    cells = pd.read_csv(tmp_path / "cells.csv").set_index("cell")
    assert list(cells.index) == ["v", "t"]
    assert cells["colour"].to_dict() == {"v": look("vanilla").colour, "t": look("topk").colour}
    assert cells.loc["v", ["l0", "fvu", "fvu_low", "fvu_high"]].tolist() == [3.0, 0.25, 0.2, 0.3]
    assert cells["lambda"].notna().to_dict() == {"v": True, "t": False}


@pytest.mark.parametrize("rows", [0, 1, POINTS, 1000])
def test_training_curves_are_thinned_between_their_ends(
    make: Make, tmp_path: Path, rows: int
) -> None:
    write_plot_tables(tmp_path, [make("t", TOPK, rows=rows), make("v", VANILLA)])
    curves = pd.read_csv(tmp_path / "training.csv")
    steps = curves[curves["cell"] == "t"]["step"].tolist()
    assert len(steps) == min(rows, POINTS)
    assert steps == sorted(set(steps))
    assert not rows or (steps[0], steps[-1]) == (0, 10 * (rows - 1))


def test_without_a_finished_cell_the_tables_are_empty(make: Make, tmp_path: Path) -> None:
    write_plot_tables(tmp_path, [make("bad", TOPK, failed=True)])
    assert (tmp_path / "cells.csv").read_text() == (tmp_path / "training.csv").read_text() == "\n"
