"""The frame of a stage: declared parameters only, one writer, faults as one line."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sae_repro.errors import StudyError
from sae_repro.installation import check_installation
from sae_repro.params import Train, read_cells
from sae_repro.stage import STATE, StageContext, declared_params, stage

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", ["corpus", "extract", "train", "compare"])
def test_declared_parameters_are_those_dvc_shows(name: str) -> None:
    import dvc.api

    assert declared_params(name) == dvc.api.params_show(stages=name)


def test_a_stage_of_another_file_reads_what_that_declares() -> None:
    import dvc.api

    ours = declared_params("tune", Path("tune/dvc.yaml"))
    assert ours.keys() == {"seed", "compute", "train", "evaluate", "recipes", "tune"}
    assert ours == dvc.api.params_show(stages="tune/dvc.yaml:tune")


def test_an_undeclared_read_fails() -> None:
    context = StageContext("train", declared_params("train"))
    assert context.section(Train, "train").batch_size == 512
    cells = read_cells(context.value("recipes"), context.value("cells"))
    assert cells["topk-x8-k16"].k == 16
    for key in ("extract", "cells.no-such-cell"):
        with pytest.raises(KeyError, match=r"which dvc\.yaml does not declare"):
            context.value(key)


def test_a_fault_names_its_key() -> None:
    context = StageContext("train", {"train": {"epochs": 0}})
    with pytest.raises(StudyError, match=r"train\.epochs = 0"):
        context.section(Train, "train")


def test_a_script_run_by_hand_says_how_to_run_it() -> None:
    done = subprocess.run(
        [sys.executable, "stages/compare.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "dvc repro compare" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_writer_waits_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "corpus")
    STATE.mkdir()
    holder = (
        "import sys, filelock\n"
        "with filelock.FileLock(sys.argv[1]):\n    print(flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", holder, str(STATE / "corpus.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert first.stdin and first.stdout
    first.stdout.readline()
    threading.Timer(1.5, first.stdin.close).start()
    with stage("corpus"):
        assert "waiting" in capsys.readouterr().err
    first.wait()
    with stage("corpus"):
        assert not capsys.readouterr().err


def test_a_stop_and_a_link_out_of_the_repository_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    study.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        (study / name).write_text((ROOT / name).read_text())
    (study / ".git").mkdir()
    monkeypatch.chdir(study)
    monkeypatch.setenv("DVC_STAGE", "corpus")
    with pytest.raises(SystemExit) as ended, stage("corpus"):
        raise KeyboardInterrupt
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "corpus: stopped from outside: run the same command to go on\n"
    )
    (tmp_path / "disk").mkdir()
    Path("artifacts").symlink_to(tmp_path / "disk")
    with pytest.raises(SystemExit) as ended, stage("corpus"):
        pytest.fail("not before the compute")
    assert ended.value.code == 2
    assert "artifacts: a link to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "was", "becomes", "named"),
    [
        ("params.yaml", "seed: 0", "seed: 1", "seed"),
        ("params.yaml", "validation: 0.1", "validation: 0.2", "corpus.validation"),
        ("params.yaml", "epochs: 2", "epochs: 3", None),  # of another stage
        ("params.yaml", "seed: 0", "seed: 0  # the first", None),
        ("requirements.lock", "numpy", "numpy1", "requirements.lock"),
    ],
)
def test_a_result_is_not_recorded_under_inputs_that_changed_meanwhile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    file: str, was: str, becomes: str, named: str | None,
) -> None:  # fmt: skip
    """DVC reads them when the stage has ended."""
    for name in ("dvc.yaml", "requirements.lock"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "params.yaml").write_text((ROOT / "studies/templates/demo.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "corpus")
    text = Path(file).read_text()
    assert was in text

    def run() -> None:
        with stage("corpus"):
            Path(file).write_text(text.replace(was, becomes, 1))

    if named is None:
        run()
        return
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    assert f"corpus: {named}: changed while the stage ran" in capsys.readouterr().err


def test_a_checkout_whose_code_is_not_the_one_that_runs_is_refused(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    (tmp_path / "code").mkdir()  # somebody's own: no record of `sae-repro init`
    check_installation(tmp_path, ["corpus", "train"])
    job = tmp_path / "src/sae_repro/train/job.py"
    job.write_text(job.read_text() + "\nCHANGED = 1\n")
    check_installation(tmp_path, ["corpus"])
    with pytest.raises(StudyError, match="other code for train than"):
        check_installation(tmp_path, ["corpus", "train"])


def test_a_folder_that_the_locale_cannot_spell_is_refused(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "für mich"
    folder.mkdir()
    (folder / "params.yaml").write_text("seed: 0")
    code = "from sae_repro.stage import stage\nwith stage('corpus'): pass"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True,
        env=os.environ | ascii_only | {"DVC_STAGE": "corpus"},
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert "has letters that this locale can't spell; set PYTHONUTF8=1" in line
