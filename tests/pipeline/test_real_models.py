"""The studies of real models: their inputs, and a part of stories260k from text to tables."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sae_repro.compare.claims import load_claims
from sae_repro.files import read_json
from sae_repro.params import load, parse, read_yaml
from sae_repro.params.claims import unknown_cells
from sae_repro.params.hooks import on_random_weights
from sae_repro.pins import check_model, pinned_texts

from .conftest import ROOT
from .in_process import carry_out

NEWS, STORIES = ROOT / "studies/smollm2-news", ROOT / "studies/stories260k"
CELLS = ("vanilla-x8-l0-16", "matryoshka-x8-k16", "pca")


def test_inputs_are_no_part_of_the_repository() -> None:
    for study in (NEWS, STORIES):
        place = f"{study.relative_to(ROOT)}/inputs/any"
        assert not subprocess.run(["git", "check-ignore", "-q", place], cwd=ROOT).returncode


def test_shared_inputs_are_those_that_the_studies_pin(shared: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "test.csv").symlink_to(shared / "data/ag_news/test.csv")
    (inputs / "samples.jsonl").symlink_to(shared / "data/tinystories/samples.jsonl")
    shutil.copytree(shared / "models/stories260k", inputs / "stories260k")
    for folder in (NEWS, STORIES):
        source: Any = load(folder / "params.yaml").corpus.source
        for file in pinned_texts(source, tmp_path):
            file.check()
    model: Any = load(STORIES / "params.yaml").subject.source
    assert check_model(model, tmp_path) == inputs / "stories260k"


@pytest.mark.parametrize("folder", [NEWS, STORIES], ids=lambda path: path.name)
def test_every_architecture_is_compared_at_a_target_and_beside_controls(folder: Path) -> None:
    study = load(folder / "params.yaml")
    l0 = study.compare.matched_l0[0]
    at = {n.split("-x")[0] for n, c in study.cells.items() if c.l0_target == l0 and c.seeds}
    assert at >= {"vanilla", "topk", "batchtopk", "matryoshka", "jumprelu", "gated"}
    assert {"neurons", "pca", "untrained"} <= {cell.baseline for cell in study.cells.values()}
    assert any(cell.frozen for cell in study.cells.values())
    assert any(on_random_weights(cell.hook or "") for cell in study.cells.values())


def test_claims_are_of_cells_of_the_study() -> None:
    study = load(NEWS / "params.yaml")
    claims = load_claims(NEWS / "claims.yaml")
    assert list(unknown_cells(claims, study.cells)) == []


def test_a_part_of_stories260k_runs_from_text_to_tables(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")
    shutil.copytree(shared / "models/stories260k", "inputs/stories260k")
    shutil.copy(shared / "data/tinystories/samples.jsonl", "inputs")
    declared: dict[str, Any] = read_yaml(STORIES / "params.yaml")
    declared["corpus"] |= {"validation": 0.1, "calibration": 0.05}
    declared["corpus"]["source"]["n_documents"] = 120
    declared["extract"] |= {
        "n_tokens": 12_000, "n_calibration_tokens": 500, "n_validation_tokens": 1_000,
        "untrained_hooks": [],
    }  # fmt: skip
    declared["train"] |= {"batch_size": 128, "epochs": 2}
    declared["report"] = {}
    declared["evaluate"] |= {"fidelity_tokens": 200, "metrics": ["monosemanticity"]}
    declared["judge"] |= {"extremes": 5, "uniform": 10, "latents": 4}
    declared["compare"] |= {"matched_l0": [16], "bootstrap": 100}
    declared["cells"] = {name: declared["cells"][name] for name in CELLS}
    for cell in declared["cells"].values():
        cell.pop("seeds", None)
    parse(declared)
    carry_out(declared, "corpus", "subject", "extract", "train", "evaluate", "judge", "control",
              "compare")  # fmt: skip
    measured = {name: read_json(Path("artifacts/evaluate", name, "metrics.json")) for name in CELLS}
    for name in CELLS[:2]:
        metrics = measured[name]["metrics"]
        assert metrics["fvu"] < 0.4 and metrics["ce_recovered_zero"] > 0.8, name
    assert measured[CELLS[1]]["metrics"]["l0"] == pytest.approx(16, rel=0.1)
    examples = pd.read_csv("reports/tables/examples.csv")
    assert examples["latent"].nunique() == 15
    words = Path("reports/tables/examples.md").read_text()
    assert words.count("## ") == 15 and "<b>" in words
    assert np.isfinite(examples["activation"]).all()
