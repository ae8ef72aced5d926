"""Adoption of trials as cells: params.yaml keeps every byte, and nothing is trained again."""

import shutil
from difflib import ndiff
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from sae_repro.cellstore import CellStore
from sae_repro.cli import app
from sae_repro.params import load
from sae_repro.stage import STATE, StageContext, declared_params
from sae_repro.train import jobs_of
from sae_repro.tune.results import trials

from .conftest import PIPELINE, ROOT, TinyStudy

runner = CliRunner()


def invoke(*arguments: str) -> str:
    result = runner.invoke(app, ["adopt", *arguments])
    assert result.exit_code == 0, result.exception
    return result.output


@pytest.fixture
def tuned(study: TinyStudy) -> TinyStudy:
    study.space(trials=4)
    study.tune()  # stays in the study's folder, where people call adopt
    return study


def test_adopted_cells_are_in_the_store_already(tuned: TinyStudy) -> None:
    before = (tuned.folder / "params.yaml").read_text()
    invoke("--pareto")
    after = (tuned.folder / "params.yaml").read_text()
    changed = [line for line in ndiff(before.splitlines(), after.splitlines()) if line[0] != " "]
    best = [t for t in trials() if t.best]
    assert len(best) >= 1
    assert changed[0] == "+   # from tune/trials.csv"
    assert all(line.startswith("+   tuned-") for line in changed[1:])
    cells = load("params.yaml").cells
    jobs = jobs_of(
        StageContext("tune", declared_params("tune", PIPELINE)), CellStore(STATE / "cells"), cells
    )
    for trial in best:
        name = f"tuned-{trial.recipe}-{trial.number}"
        assert jobs[name, "."].key == trial.key
        assert (STATE / "cells" / trial.key / "sae_weights.safetensors").is_file()


def test_a_dry_run_shows_the_diff_and_writes_nothing(tuned: TinyStudy) -> None:
    before = (tuned.folder / "params.yaml").read_bytes()
    message = invoke("--trial", "1", "--dry-run")
    assert "\n+  tuned-" in message
    assert "dry run: nothing was written" in message
    assert (tuned.folder / "params.yaml").read_bytes() == before


def test_an_adopted_trial_is_not_added_twice(tuned: TinyStudy) -> None:
    name = f"tuned-{trials()[1].recipe}-1"
    invoke("--trial", "1")
    before = (tuned.folder / "params.yaml").read_bytes()
    assert f"trial 1 is the cell {name} already" in invoke("--trial", "1", "--prefix", "again")
    assert (tuned.folder / "params.yaml").read_bytes() == before


def test_a_taken_name_and_a_trial_without_a_cell_are_refused(tuned: TinyStudy) -> None:
    params = tuned.folder / "params.yaml"
    name = f"tuned-{trials()[1].recipe}-1"
    params.write_text(params.read_text() + f"  {name}: {{expansion: 2, activation: topk, k: 5}}\n")
    before = params.read_bytes()
    for arguments, says in [
        (["--trial", "1"], f"cells.{name} exists already"),
        (["--trial", "9"], "tune/trials.csv has 0 … 3"),
        (["--trial", "1", "--prefix", "No.Name"], "No.Name"),
    ]:
        result = runner.invoke(app, ["adopt", *arguments])
        assert says in str(result.exception)
    assert params.read_bytes() == before


def test_a_front_of_several_trials_needs_a_choice(tuned: TinyStudy) -> None:
    record = tuned.folder / "tune/trials.csv"
    record.write_text(record.read_text().replace(",ok,no,", ",ok,yes,"))
    result = runner.invoke(app, ["adopt"])
    assert "the front has 4 trials: --pareto for all, or --trial with one of 0, 1, 2, 3" in str(
        result.exception
    )


def test_the_real_params_keep_every_byte(tuned: TinyStudy, tmp_path: Path) -> None:
    """Recipes, comments, and a section after the cells."""
    text = (ROOT / "params.yaml").read_text()
    track = text[text.index("track:\n") : text.index("# Choices that several")]
    after_the_cells = text.replace(track, "") + "\n# the rest\n" + track
    for number, real in enumerate((text, after_the_cells)):
        folder = tmp_path / str(number)
        shutil.copytree(tuned.folder / "tune", folder / "tune")
        (folder / "params.yaml").write_text(real)
        invoke("--trial", "0", "--trial", "2", "--study", str(folder))
        added = (folder / "params.yaml").read_text()
        lines = ndiff(real.splitlines(keepends=True), added.splitlines(keepends=True))
        assert "".join(line[2:] for line in lines if line[0] not in "+?") == real
        new = YAML(typ="safe").load(added)["cells"]
        assert [name for name in new if name.startswith("tuned-")] == list(new)[-2:]
