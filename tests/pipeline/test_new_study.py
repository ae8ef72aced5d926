"""New studies on real text, run to their reports: every target reached, nothing outside."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("src", "stages", "dvc.yaml", "params.yaml", "requirements.lock", ".dvc/config",
        ".dvc/plots", ".dvcignore", ".gitignore")  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The code of a checkout, in a git and DVC repository of its own."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in CODE:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def run(checkout: Path, *command: str) -> str:
    bin_ = Path(sys.executable).parent
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "DVC_"))},
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(checkout / "src"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def new(checkout: Path, *arguments: str) -> None:
    code = "from sae_repro.cli import main; main()"
    run(checkout, sys.executable, "-c", code, "new", "mine", *arguments)


def reports_are_whole(checkout: Path) -> None:
    run(checkout, "dvc", "repro", "studies/mine/dvc.yaml")
    tables = checkout / "studies/mine/reports/tables"
    with (tables / "cells.csv").open() as file:
        cells = list(csv.DictReader(file))
    trained = [row for row in cells if row["negative_control"] == "no"]
    assert len(trained) == 12
    for row in trained:
        assert row["status"] == "ok" and not row["remarks"], row
        assert abs(float(row["l0"]) / float(row["target_l0"]) - 1) <= 0.1
        assert float(row["fvu"]) < 1
    assert len({(row["l0"], row["fvu"]) for row in trained}) == 12, "one cell twice"
    with (tables / "matched_l0.csv").open() as file:
        matched = list(csv.DictReader(file))
    assert len(matched) == 12
    assert all(row["fvu"] for row in matched), "a row outside"


@pytest.mark.slow
def test_a_study_of_news_reaches_its_targets(checkout: Path, shared: Path, tmp_path: Path) -> None:
    lines = (shared / "data/ag_news/test.csv").read_text().splitlines(keepends=True)
    path = tmp_path / "news.csv"
    path.write_text("".join(lines[:401]))
    new(checkout, "--text", str(path), "--column", "title", "--column", "description",
        "--label", "label")  # fmt: skip
    reports_are_whole(checkout)


@pytest.mark.slow
def test_a_study_of_a_real_model_reaches_its_targets(checkout: Path, shared: Path) -> None:
    new(checkout, "--text", str(shared / "data/tinystories/samples.jsonl"), "--documents", "250",
        "--model", str(shared / "models/stories260k"))  # fmt: skip
    reports_are_whole(checkout)
