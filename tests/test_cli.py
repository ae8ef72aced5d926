"""The commands around the pipeline."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.params import load
from sae_repro.preflight import check_inputs

ROOT = Path(__file__).resolve().parents[1]
runner = CliRunner()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a checkout that `new` needs."""
    folder = tmp_path / "checkout"
    (folder / "stages").mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder / name)
    monkeypatch.chdir(folder)
    return folder


def invoke(*arguments: str) -> str:
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == 0, result.exception
    return result.output


def test_new_copies_the_study_and_links_the_pipeline(checkout: Path) -> None:
    message = invoke("new", "copy")
    assert "next: dvc repro studies/copy/dvc.yaml" in message
    folder = checkout / "studies/copy"
    assert (folder / "dvc.yaml").resolve() == checkout / "dvc.yaml"
    assert (folder / "dvc.yaml").is_symlink()
    study = load(folder / "params.yaml")
    assert study.root == "../.."
    assert study.cells == load(checkout / "params.yaml").cells
    text = (folder / "params.yaml").read_text()
    assert text.startswith(
        "# yaml-language-server: $schema=../../params.schema.json\n# Study copy."
    )
    assert text.count("yaml-language-server") == 1
    assert "# the published grid" in text


def test_new_on_ones_own_text_trains_a_subject_on_it(checkout: Path) -> None:
    text = checkout.parent / "mine.csv"
    text.write_text("title,body,kind\n" + "a,some words here,x\n" * 50)
    invoke("new", "mine", "--text", str(text), "--column", "body", "--label", "kind")
    study = load(checkout / "studies/mine/params.yaml")
    assert study.corpus.source.columns == ("body",)
    assert study.subject.training is not None
    check_inputs(study, checkout / "studies/mine")


def test_metrics_lists_all_rows_and_describes_one() -> None:
    listed = invoke("metrics")
    assert "Fidelity to the language model" in listed and "probe_auc_<k>" in listed
    one = invoke("metrics", "monosemantic_fraction_alive")
    assert "latents_alive" in one and "Wilson over latents" in one
    assert invoke("metrics", "fvu").count("definition") == 2, "control's own row too"
    refused = runner.invoke(app, ["metrics", "fuv"])
    assert "fuv: no such metric; nearest: fvu" in str(refused.exception)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["copy"], "exists already"),
        (["Bad.Name"], "lower-case letters"),
        (["x", "--text", "nothing.txt"], "no such file"),
        (["x", "--column", "a"], "describe a --text file"),
        (["x", "--model", "someone/model"], "give --revision"),
        (["x", "--hook", "blocks.9.hook_mlp_out"], "layers 0 … 2"),
        (["x", "--from", "elsewhere"], "no such file"),
    ],
)
def test_new_refuses_and_leaves_nothing(checkout: Path, arguments: list[str], says: str) -> None:
    invoke("new", "copy")
    result = runner.invoke(app, ["new", *arguments])
    assert says in str(result.exception)
    assert [p.name for p in (checkout / "studies").iterdir()] == ["copy"]


def test_new_on_real_news(checkout: Path, shared: Path) -> None:
    path = shared / "data/ag_news/test.csv"
    invoke("new", "news", "--text", str(path), "--column", "title", "--column", "description",
           "--label", "label")  # fmt: skip
    folder = checkout / "studies/news"
    check_inputs(load(folder / "params.yaml"), folder)


def test_new_on_a_real_model_and_its_text(checkout: Path, shared: Path) -> None:
    message = invoke(
        "new", "tiny", "--text", str(shared / "data/tinystories/samples.jsonl"),
        "--model", str(shared / "models/stories260k"),
    )  # fmt: skip
    assert "hook: blocks.2.hook_resid_post, the middle of 5 layers" in message
    folder = checkout / "studies/tiny"
    study = load(folder / "params.yaml")
    check_inputs(study, folder)
    assert study.subject.training is None
    assert study.extract.hooks == ("blocks.2.hook_resid_post",)


def test_new_on_a_model_of_the_hub(checkout: Path) -> None:
    text = checkout.parent / "a.txt"
    text.write_text("one\n\ntwo\n")
    invoke("new", "hub", "--text", str(text), "--model", "someone/model", "--revision", "b" * 40,
           "--d-model", "64", "--n-layers", "6")  # fmt: skip
    study = load(checkout / "studies/hub/params.yaml")
    assert study.subject.source.kind == "hub"
    assert study.extract.hooks == ("blocks.3.hook_resid_post",)


def test_cells_lists_which_are_trained_and_evaluated(checkout: Path) -> None:
    done = checkout / "artifacts/train/topk-x8-k16"
    done.mkdir(parents=True)
    (done / "train.json").write_text("{}")
    rows = {line.split()[0]: line.split() for line in invoke("cells").splitlines()}
    assert rows["topk-x8-k16"][-2:] == ["yes", "–"]
    assert rows["topk-x8-k32"][-2:] == ["–", "–"]
    evaluated = checkout / "artifacts/evaluate/topk-x8-k32/metrics.json"
    evaluated.parent.mkdir(parents=True)
    evaluated.write_text('{"metrics": {"l0": 20.5, "fvu": 0.1}}')
    row = next(line for line in invoke("cells").splitlines() if line.startswith("topk-x8-k32"))
    assert row.endswith("yes          L0 20.5, target 32 missed")
    assert rows["vanilla-x32-l1em4"][2] == "2048"


def test_help_has_examples() -> None:
    for command in ("check", "cells", "new", "pin", "track", "verify"):
        assert len(invoke(command, "--help").splitlines()) > 8
    assert "Example" in invoke("new", "--help")


def test_verify_exits_with_one_where_results_differ(tmp_path: Path) -> None:
    for name, value in (("a", "1"), ("b", "2")):
        (tmp_path / name / "reports").mkdir(parents=True)
        (tmp_path / name / "reports/x.json").write_text(value)
    result = runner.invoke(app, ["verify", str(tmp_path / "b"), "--study", str(tmp_path / "a")])
    assert result.exit_code == 1
    assert "reports/x.json: value: 1 against 2" in result.output
    same = invoke("verify", str(tmp_path / "a"), "--study", str(tmp_path / "a"))
    assert same == "identical: 1 files, 1 bytes\n"
