"""The public API, and the general behaviour of the command line."""

import importlib
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sae_repro import PUBLIC, __version__
from sae_repro.cli import app
from sae_repro.errors import StudyError, did_you_mean
from sae_repro.params import parse, read_yaml

ROOT = Path(__file__).resolve().parents[2]
runner = CliRunner()


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_there_and_documented(module: str) -> None:
    found = importlib.import_module(module)
    pages = {page: page.read_text() for page in (ROOT / "docs/api").glob("*.md")}
    assert any(f"::: {module}\n" in text for text in pages.values()), f"no page for {module}"
    [row] = [line for line in pages[ROOT / "docs/api/index.md"].splitlines()
             if line.startswith(f"| [{module}]")]  # fmt: skip
    assert set(re.findall(r"`(\w+)`", row)) == set(PUBLIC[module])
    for name in PUBLIC[module]:
        assert getattr(found, name).__doc__, name


def test_importing_the_package_is_cheap() -> None:
    import subprocess
    import sys

    code = "import sae_repro, sys; print('torch' in sys.modules, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_version_names_what_a_report_of_a_fault_needs() -> None:
    import torch

    lines = runner.invoke(app, ["--version"]).output.splitlines()
    assert lines[0] == f"sae-repro {__version__}"
    assert f"torch {torch.__version__}" in lines
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"commit [0-9a-f]{40}( with uncommitted changes)?", lines[1])


def test_a_mistyped_command_is_answered_with_the_nearest() -> None:
    assert "Did you mean 'verify'" in runner.invoke(app, ["verfiy"]).output


def test_completion_is_offered() -> None:
    assert "--install-completion" in runner.invoke(app, ["--help"]).output


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("trian", "trian = 3: unknown key; did you mean train"),
        ("extract.n_token", "n_token = 3: unknown key; did you mean n_tokens"),
        ("corpus.source.n_docs", "unknown key; did you mean n_documents?"),
        ("subject.training.batchsize", "unknown key; did you mean batch_size?"),
        ("cells.topk-k8.expnsion", "unknown key; did you mean expansion?"),
        ("extract.qqq", "unknown key; `sae-repro check --schema` lists all"),
    ],
)
def test_a_mistyped_key_is_answered_with_the_nearest(path: str, says: str) -> None:
    raw = read_yaml(ROOT / "studies/templates/demo.yaml")
    *parents, last = path.split(".")
    section = raw
    for parent in parents:
        section = section[parent]
    section[last] = 3
    with pytest.raises(StudyError) as refused:
        parse(raw)
    assert says in str(refused.value)


def test_a_mistyped_cell_is_answered_with_the_nearest(tmp_path: Path) -> None:
    cells = ["export", "topk-x8-k61", "--format", "saelens", "--to", str(tmp_path / "x"),
             "--study", str(ROOT)]  # fmt: skip
    assert "did you mean topk-x8-k16" in str(runner.invoke(app, cells).exception)


def test_nothing_near_is_no_suggestion() -> None:
    assert did_you_mean("zzz", ["train", "track"]) == ""
    assert did_you_mean("tarin", ["train", "train"]) == "; did you mean train?"
