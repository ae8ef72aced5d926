"""`dvc exp`: one value changed is one line of params.yaml and one cell trained."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from sae_repro.params import load

from .conftest import Run, commit

pytestmark = pytest.mark.slow


def trained(study: Path) -> set[str]:
    """Keys of the cells that the store has."""
    return {path.parent.name for path in study.glob(".sae-repro/cells/*/train.json")}


@pytest.fixture
def study(finished_clone: Path, copied: Callable[[Path], Path], run: Run) -> Path:
    """The finished study, one of its cells by a recipe, laid out as DVC writes it; committed."""
    folder = copied(finished_clone)
    params = folder / "params.yaml"
    text = params.read_text()
    for old, new in (
        ("recipes: {}", "recipes:\n  shared: {activation: topk, expansion: 4}"),
        ("topk: {expansion: 4, activation: topk, k: 3}", "topk: {recipe: shared, k: 3}"),
    ):
        assert old in text
        text = text.replace(old, new)
    params.write_text(text)
    apply_overrides(params, ["seed=0"])
    before = trained(folder)
    run("dvc", "repro", cwd=folder)
    assert trained(folder) == before, "the same cells, otherwise written"
    commit(folder, "A recipe")
    return folder


def changed(study: Path, run: Run) -> list[str]:
    """Lines that params.yaml lost and got since the commit."""
    lines = run("git", "diff", "-U0", "params.yaml", cwd=study).stdout.splitlines()
    return [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]


def test_a_value_set_is_one_line_and_one_cell(study: Path, run: Run) -> None:
    before = trained(study)
    run("dvc", "exp", "run", "-S", "cells.vanilla.lambda=3e-3", cwd=study)
    assert changed(study, run) == [
        "-  vanilla: {expansion: 4, penalty: l1, lambda: 1e-2}",
        "+  vanilla: {expansion: 4, penalty: l1, lambda: 0.003}",
    ]
    assert len(trained(study) - before) == 1
    # recipes are still recipes: a later edit of one reaches its cells, and no others
    before = trained(study)
    apply_overrides(study / "params.yaml", ["recipes.shared.expansion=2"])
    run("dvc", "repro", cwd=study)
    assert len(trained(study) - before) == 1
    assert load(study / "params.yaml").cells["topk"].expansion == 2


def test_experiments_are_queued_shown_applied_and_removed(study: Path, run: Run) -> None:
    run("dvc", "exp", "run", "--queue", "--name", "slow", "-S", "+cells.topk.lr=3e-4", cwd=study)
    run("dvc", "exp", "run", "--run-all", cwd=study)
    assert changed(study, run) == []
    shown = run("dvc", "exp", "show", "--json", cwd=study).stdout
    names = [e["name"] for row in json.loads(shown) for e in row["experiments"] or ()]
    assert names == ["slow"]
    run("dvc", "exp", "apply", "slow", cwd=study)
    assert changed(study, run) == [
        "-  topk: {recipe: shared, k: 3}",
        "+  topk: {recipe: shared, k: 3, lr: 0.0003}",
    ]
    assert load(study / "params.yaml").cells["topk"].lr == 3e-4
    summary = json.loads((study / "artifacts/train/topk/train.json").read_text())
    assert summary["choices"]["lr"] == 3e-4
    run("dvc", "exp", "remove", "slow", cwd=study)
    assert "slow" not in run("dvc", "exp", "list", cwd=study).stdout
