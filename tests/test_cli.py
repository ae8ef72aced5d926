"""The commands around the pipeline."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sae_repro.cli import COMMANDS, app

ROOT = Path(__file__).resolve().parents[1]
runner = CliRunner()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root study of a checkout in which nothing has run."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder / name)
    monkeypatch.chdir(folder)
    return folder


def invoke(*arguments: str) -> str:
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == 0, result.exception
    return result.output


def test_metrics_lists_all_rows_and_describes_one() -> None:
    listed = invoke("metrics")
    assert "Fidelity to the language model" in listed and "probe_auc_<k>" in listed
    one = invoke("metrics", "monosemantic_fraction_alive")
    assert "latents_alive" in one and "Wilson over latents" in one
    assert invoke("metrics", "fvu").count("definition") == 2, "control's own row too"
    refused = runner.invoke(app, ["metrics", "fuv"])
    assert "fuv: no such metric; nearest: fvu" in str(refused.exception)


@pytest.mark.parametrize("command", ["ui", "tune-ui"])
@pytest.mark.parametrize("port", ["0", "-1", "65536"])
def test_a_port_that_no_machine_has_is_refused(command: str, port: str) -> None:
    refused = runner.invoke(app, [command, "--port", port])
    assert refused.exit_code == 2 and "--port" in refused.output


def test_cells_lists_which_are_trained_and_evaluated(checkout: Path) -> None:
    done = checkout / "artifacts/train/mlp-topk-x8-k16"
    done.mkdir(parents=True)
    (done / "train.json").write_text("{}")
    rows = {line.split()[0]: line.split() for line in invoke("cells").splitlines()}
    assert rows["mlp-topk-x8-k16"][-2:] == ["yes", "–"]
    assert rows["pca"][-2:] == ["–", "–"]
    evaluated = checkout / "artifacts/evaluate/mlp-topk-x8-k16/metrics.json"
    evaluated.parent.mkdir(parents=True)
    evaluated.write_text('{"metrics": {"l0": 20.5, "fvu": 0.1}}')
    row = next(line for line in invoke("cells").splitlines() if line.startswith("mlp-topk-x8-k16"))
    assert row.endswith("yes          L0 20.5, target 16 missed")
    assert rows["vanilla-x32-l1em4"][2] == "2048"
    (done / "train.json").write_text('{"key": "k"}')
    (checkout / ".sae-repro/costs").mkdir(parents=True)
    cost = '{"seconds": 3.21, "cpu_seconds": 3, "parts": 1, "device": "a processor"}'
    (checkout / ".sae-repro/costs/k.json").write_text(cost)
    assert "yes, 3.2 s  yes" in invoke("cells")


def test_help_names_every_command_in_a_whole_sentence_and_has_examples_to_copy() -> None:
    listed = invoke("--help").partition("Commands:")[2].strip().splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    for name, line in zip(COMMANDS, listed, strict=True):
        assert line.endswith("."), line
        assert not line.endswith("..."), line  # click cuts what does not fit into 80 columns
        helped = invoke(name, "--help")
        examples = re.findall(r"^    (?=sae-repro |SAE_REPRO|torchrun)(.*)$", helped, re.M)
        written = inspect.getdoc(COMMANDS[name]) or ""
        if "Examples:" in written:
            assert len(examples) > 1 and all(f"\n{example}" in written for example in examples)
        else:
            assert "Example: sae-repro" in helped or name == "schema"


def test_verify_refuses_a_further_study_of_the_checkout_as_its_own_results(tmp_path: Path) -> None:
    study, clone = tmp_path / "studies/mine", tmp_path / "second"
    for folder in (study, clone, clone / ".dvc"):
        folder.mkdir(parents=True)
    for folder in (tmp_path, study, clone):
        (folder / "params.yaml").write_text("seed: 0\n")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/x.json").write_text("1")
    shutil.copytree(tmp_path / "reports", clone / "reports")
    refused = runner.invoke(app, ["verify", str(study), "--study", str(tmp_path)])
    assert f"sae-repro verify --study {study}" in str(refused.exception)
    assert "identical" in invoke("verify", str(clone), "--study", str(tmp_path))


def test_verify_exits_with_one_where_results_differ(tmp_path: Path) -> None:
    for name, value in (("a", "1"), ("b", "2")):
        (tmp_path / name / "reports").mkdir(parents=True)
        (tmp_path / name / "reports/x.json").write_text(value)
    command = ["verify", str(tmp_path / "b"), "--study", str(tmp_path / "a")]
    result = runner.invoke(app, command)
    assert result.exit_code == 1
    assert result.output.startswith(f"not {tmp_path / 'b'} within 0.0001: 1 of 1 file differ")
    assert "reports/x.json: value: 1 against 2" in result.output
    assert "by 50.0% at most" in invoke(*command, "--rtol", "0.5")
    same = invoke("verify", str(tmp_path / "a"), "--study", str(tmp_path / "a"))
    assert same == f"identical to {tmp_path / 'a'} (1 file)\n"


def test_a_terminal_that_cannot_spell_a_line_gets_it_escaped() -> None:
    code = "from sae_repro.errors import print_any_text as f; f(); print('4×')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.stdout == "4\\xd7\n"
