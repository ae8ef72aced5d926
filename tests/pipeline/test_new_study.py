"""New studies on real text, run to their reports: every target reached, nothing outside."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Checkout


@pytest.fixture
def checkout(fresh: Checkout, tmp_path: Path) -> Checkout:
    """A checkout of the project in which nothing has run."""
    return fresh.copy(tmp_path / "checkout")


def new(checkout: Checkout, *arguments: str) -> None:
    code = "from sae_repro.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "new", "mine", *arguments], cwd=checkout.folder,
        env=checkout.environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def reports_are_whole(checkout: Checkout) -> None:
    checkout.repro("studies/mine/dvc.yaml")
    tables = checkout.folder / "studies/mine/reports/tables"
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
def test_a_study_of_news_reaches_its_targets(
    checkout: Checkout, shared: Path, tmp_path: Path
) -> None:
    lines = (shared / "data/ag_news/test.csv").read_text().splitlines(keepends=True)
    path = tmp_path / "news.csv"
    path.write_text("".join(lines[:401]))
    new(checkout, "--text", str(path), "--column", "title", "--column", "description",
        "--label", "label")  # fmt: skip
    params = checkout.folder / "studies/mine/params.yaml"
    before = params.read_text()
    assert "\nevaluate:\n" in before
    # with all metrics, the study of a real model
    params.write_text(before.replace("\nevaluate:\n", "\nevaluate:\n  metrics: []\n"))
    reports_are_whole(checkout)


@pytest.mark.slow
def test_a_study_of_a_real_model_reaches_its_targets(checkout: Checkout, shared: Path) -> None:
    new(checkout, "--text", str(shared / "data/tinystories/samples.jsonl"), "--documents", "250",
        "--model", str(shared / "models/stories260k"))  # fmt: skip
    reports_are_whole(checkout)
