"""The judge's tables: the published layout, theirs beside ours, every count kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sae_repro.compare import published
from sae_repro.compare.collect import Result
from sae_repro.compare.judged import write_judged
from sae_repro.files import write_json
from sae_repro.numerics.intervals import wilson, wilson_over_groups
from sae_repro.params import Cell


def group(labelled: int, answered: int, unparsable: int = 0) -> dict[str, Any]:
    return {
        "rate": labelled / answered if answered else None,
        "interval": list(wilson(labelled, answered)),
        "labelled": labelled, "answered": answered, "unparsable": unparsable,
    }  # fmt: skip


def judged(labelled: int, **changes: Any) -> dict[str, Any]:
    half = group(labelled // 2, 25)
    counts = {"parsed": 50, "unparsable": 0}
    return {
        "status": "ok", "judge": "concepts", "counts": {"latents": 256, "latents_alive": 250},
        "rates": {"extremes": group(labelled, 50), "top": half, "bottom": half,
                  "uniform": group(10, 48, 2)},
        "agreement": None,
        "scores": {"detection": {"balanced_accuracy": 0.75, "interval": [0.7, 0.8], "f1": 0.7,
                                 "latents": 20, "positives": 200, "negatives": 199,
                                 "unparsable": 1},
                   "simulation": None},
        "answers": {"label": counts, "detection": {**counts, "unparsable": 1}},
        "explained": [{}] * 20,
        **changes,
    }  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Result]:
    """Writes what `judge` leaves of one cell; the cell's result."""

    def go(name: str, *found: dict[str, Any], **choices: Any) -> Result:
        cell = Cell(**{"expansion": 4, "penalty": "l1", "lambda_": 1e-2, **choices})
        evaluated = tmp_path / "artifacts/evaluate" / name
        for place, one in zip(cell.members(), found, strict=True):
            measured = {"status": one["status"], "hook": "h"}
            write_json(evaluated / place / "metrics.json", measured)
            sae = name if place == "." else f"{name}/{place}"
            write_json(tmp_path / "artifacts/judge" / f"{sae}.json", {"cell": sae, **one})
        return Result(name, cell, {"status": found[0]["status"], "hook": "h"}, tmp_path, evaluated)

    return go


def tables(folder: Path, results: list[Result]) -> Path:
    (folder / "tables").mkdir()
    write_judged(folder / "tables", results, folder / "artifacts", 0)
    return folder / "tables"


def test_ours_stands_above_the_published_grid(write: Callable[..., Result], tmp_path: Path) -> None:
    results = [
        write("a", judged(20)),
        write("b", judged(40), revival="resample"),
        write("c", judged(50), prefixes="fixed"),
        write("d", {"status": "failed", "reason": "collapsed"}, expansion=8),
    ]
    folder = tables(tmp_path, results)
    text = (folder / "judged.md").read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    cells = [[part.strip() for part in row] for row in rows]
    assert cells[0] == ["model", "", "λ", "4×", "8×", "16×", "32×"]
    assert cells[1] == [
        "this study",
        "no resampling",
        "0.01",
        "0.400 [0.276, 0.538]",
        "—",
        "—",
        "—",
    ]
    assert cells[3][3] == f"0.800 {published.INTERVAL_AT_08}"
    theirs = ["published: GPT-2 small", "resampling", "0.01", "0.720", "0.780", "0.880", "0.800"]
    assert theirs in cells
    assert "another model" in text
    assert "The judge is no language model" in text
    long = pd.read_csv(folder / "judged.csv")
    assert len(long) == 2 * 2 * 4
    first = long.iloc[0]
    assert (first["cell"], first["extremes_labelled"], first["extremes_answered"]) == ("a", 20, 50)
    assert long["published_gpt2_monosemantic"].notna().all()


def test_every_judged_cell_has_a_row_with_its_counts(
    write: Callable[..., Result], tmp_path: Path
) -> None:
    results = [write("a", judged(20)), write("d", {"status": "failed", "reason": "collapsed"})]
    folder = tables(tmp_path, results)
    row = pd.read_csv(folder / "judged_cells.csv").iloc[0]
    counts = [row[f"uniform_{name}"] for name in ("labelled", "answered", "unparsable")]
    assert counts == [10, 48, 2]
    assert (row["detection_low"], row["detection_unparsable"]) == (0.7, 1)
    text = (folder / "judged_cells.md").read_text()
    assert "0.750 [0.700, 0.800]" in text
    assert text.count("not measured") >= 3, "simulation, AUC, and the caption"
    assert "**Not judged:** d: collapsed" in text


def test_seeds_are_pooled_in_the_grid_and_apart_among_the_cells(
    write: Callable[..., Result], tmp_path: Path
) -> None:
    lost = {"status": "failed", "reason": "collapsed"}
    folder = tables(tmp_path, [write("a", judged(10), judged(30), lost, seeds=[0, 1, 2])])
    first = pd.read_csv(folder / "judged.csv").iloc[0]
    assert (first["extremes_rate"], first["extremes_answered"], first["seeds"]) == (0.4, 100, 2)
    low, high = wilson_over_groups([10, 30], [50, 50])
    assert (first["extremes_low"], first["extremes_high"]) == pytest.approx((low, high))
    assert high - low > np.diff(wilson(40, 100)), "seeds that lie apart widen it"
    cells = pd.read_csv(folder / "judged_cells.csv")
    assert cells["cell"].tolist() == ["a/seed-0", "a/seed-1"]
    assert "a/seed-2: collapsed" in (folder / "judged_cells.md").read_text()


def test_a_language_model_is_named_and_agreement_shown(
    write: Callable[..., Result], tmp_path: Path
) -> None:
    agreement = {"auc": 0.8, "interval": [0.7, 0.9], "latents": 45, "labelled": 30,
                 "without_answer": 2, "without_m": 3}  # fmt: skip
    folder = tables(tmp_path, [write("a", judged(20, judge="some-model", agreement=agreement))])
    text = (folder / "judged_cells.md").read_text()
    assert "some-model, a language model" in text
    assert "0.800 [0.700, 0.900]" in text
    row = pd.read_csv(folder / "judged_cells.csv").iloc[0]
    assert (row["auc_of_M"], row["auc_without_M"]) == (0.8, 3)


def test_no_table_without_judged_cells(write: Callable[..., Result], tmp_path: Path) -> None:
    folder = tables(tmp_path, [write("d", {"status": "failed", "reason": "collapsed"})])
    assert not list(folder.iterdir())
