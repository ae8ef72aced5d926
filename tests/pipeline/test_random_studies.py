"""Studies of random cells, of few documents, of one latent: every stage runs to its end."""

import json
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sae_repro.errors import StudyError
from sae_repro.files import read_json
from sae_repro.params import parse

from ..train.random_cells import random_cells
from .conftest import small_text
from .in_process import D_IN, HOOKS, ORDINARY, STEPS, carry_out, study
from .random_studies import random_whole_study

pytestmark = pytest.mark.slow

AFTER_EXTRACT = ("train", "evaluate", "judge", "control", "compare", "report")


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with artifacts of `corpus` and `subject`, and the text's pin."""
    folder = tmp_path_factory.mktemp("subject")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SAE_REPRO_JOBS", "1")
        pin = small_text(folder / "text.jsonl")
        for stage in ("corpus", "subject"):
            carry_out(study(pin), stage)
    return folder, pin


@pytest.fixture
def run(
    subject: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, dict[str, Any]]]:
    """Runs a study from `extract` to `report`; the metrics.json of its cells."""
    folder, pin = subject
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "study"))

    def go(cells: dict[str, Any], batch_size: int = 64, **extract: Any) -> dict[str, Any]:
        declared = study(pin, **extract) | {"cells": cells}
        declared["train"]["batch_size"] = batch_size
        parse(declared)
        carry_out(declared, "extract", *AFTER_EXTRACT)
        evaluated = Path("artifacts/evaluate")
        return {name: read_json(evaluated / name / "metrics.json") for name in cells}

    return go


@pytest.mark.parametrize("seed", range(5))
def test_random_cells_run_to_the_end_and_the_failed_are_named(
    run: Callable[..., Any], seed: int
) -> None:
    drawn = random_cells(np.random.default_rng(seed), HOOKS, D_IN, STEPS)
    measured = run({f"cell{n}": cell for n, cell in enumerate(islice(drawn, 8))})
    failed_cells_are_named(measured)


@pytest.mark.parametrize("seed", [1, 4])
def test_random_choices_of_every_section_run_to_the_end(
    subject: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    folder, pin = subject
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "study"))
    declared = random_whole_study(seed, study(pin), cells=4)
    carry_out(declared, "extract", *AFTER_EXTRACT)
    evaluated = Path("artifacts/evaluate")
    cells = {name: read_json(evaluated / name / "metrics.json") for name in declared["cells"]}
    failed_cells_are_named(cells)


def failed_cells_are_named(measured: dict[str, dict[str, Any]]) -> None:
    table = pd.read_csv("reports/tables/cells.csv").set_index("cell")
    findings = Path("reports/tables/findings.md").read_text()
    for name, cell in measured.items():
        assert cell["status"] == table.loc[name, "status"]
        if cell["status"] == "failed":
            assert cell["reason"]
            assert table.loc[name, "reason"] == cell["reason"]
            assert f"{name}: failed: {cell['reason']}" in findings


@pytest.mark.parametrize(
    "extract",
    [
        {"n_validation_tokens": 1},
        {"n_validation_tokens": 10},
        {"n_validation_tokens": 200},
        {"n_calibration_tokens": 1},
        {"pooling": "document_mean", "n_tokens": 20_000, "n_validation_tokens": 20},
        {"pooling": "document_mean", "n_tokens": 20_000},
    ],
    ids=str,
)
def test_a_handful_of_tokens_or_documents_is_compared(
    run: Callable[..., Any], extract: dict[str, Any]
) -> None:
    measured = run(ORDINARY, batch_size=32, **extract)
    assert {cell["status"] for cell in measured.values()} == {"ok"}
    documents = measured["neurons"]["counts"]["documents"]
    few = documents < 5
    assert (measured["neurons"]["intervals"].get("l0") is None) == few
    assert ("too few for intervals" in Path("reports/tables/cells.md").read_text()) == few


def test_one_latent_of_every_kind_is_compared(run: Callable[..., Any]) -> None:
    sparse = {"penalty": "l1", "lambda": 1e-3}
    cells = {
        "relu": sparse,
        "topk": {"activation": "topk", "k": 1},
        "batchtopk": {"activation": "batchtopk", "k": 1},
        "prefixes": {"activation": "batchtopk", "k": 1, "prefixes": "random"},
        "jumprelu": {"activation": "jumprelu", "penalty": "l0", "lambda": 1e-3},
        "gated": {"activation": "gated", **sparse},
        "resample": {**sparse, "revival": "resample", "resample_every": 5},
        "auxk": {"activation": "topk", "k": 1, "revival": "auxk", "dead_tokens": 100},
    }
    measured = run({name: {"expansion": 1 / D_IN, **cell} for name, cell in cells.items()})
    assert {cell["status"] for cell in measured.values()} == {"ok"}
    assert {cell["d_sae"] for cell in measured.values()} == {1}
    assert json.loads(Path("reports/metrics.json").read_text()).keys() == cells.keys()


def test_what_never_happened_is_in_the_tables(run: Callable[..., Any]) -> None:
    """The text is too short for it, which only `extract` knows."""
    cell = {"expansion": 2, "penalty": "l1", "lambda": 1e-3, "revival": "resample"}
    with pytest.raises(StudyError, match="no resampling would ever happen"):
        run({"cell": {**cell, "resample_every": 30}})
    run({"cell": {**cell, "resample_every": 10_000}}, n_tokens=1_000_000)
    findings = Path("reports/tables/findings.md").read_text()
    assert "cell: never resampled: resample_every 10,000, the last one is due by step" in findings
