"""`sae-repro verify` without another folder: a study compared with what git recorded of it."""

import csv
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from sae_repro.cli.verifying import verify as command
from sae_repro.errors import StudyError
from sae_repro.verify.files import MACHINES
from sae_repro.verify.machines import COLUMNS

from .conftest import execute

pytestmark = pytest.mark.slow

PIPELINE = """\
stages:
  make:
    cmd: python make.py
    deps: [make.py, requirements.lock]
    params: [value]
    outs:
      - artifacts/make
      - reports/tables: {cache: false}
"""
MAKE = """\
import pathlib
value = float(pathlib.Path("params.yaml").read_text().splitlines()[0].split()[1])
pins = len(pathlib.Path("requirements.lock").read_text())
for folder in ("artifacts/make", "reports/tables"):
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
pathlib.Path("artifacts/make/w.json").write_text(f"[{value}, {pins}, 2]")
pathlib.Path("reports/tables/cells.csv").write_text(f"cell,fvu\\ntopk,{value}\\n")
pathlib.Path("reports/tables/cells.md").write_text(f"topk {value:.3g}\\n")
pathlib.Path("reports/tables/cells.png").write_bytes(str(value).encode())
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one cheap stage, run and committed."""
    folder = tmp_path_factory.mktemp("recorded") / "study"
    folder.mkdir()
    for name, text in {
        "dvc.yaml": PIPELINE,
        "make.py": MAKE,
        "requirements.lock": f"not-there==1.0\nnumpy=={version('numpy')}\n",
        "params.yaml": "value: 0.5\ncompute: {bits: portable}\n",
        ".gitignore": "/artifacts\n",
    }.items():
        (folder / name).write_text(text)
    execute("git", "init", "-q", cwd=folder)
    execute("git", "config", "user.name", "A User", cwd=folder)
    execute("git", "config", "user.email", "user@example.org", cwd=folder)
    execute("dvc", "init", "-q", cwd=folder)
    execute("dvc", "repro", "-q", cwd=folder)
    execute("git", "add", "-A", cwd=folder)
    execute("git", "commit", "-qm", "A study and its results", cwd=folder)
    return folder


def verify(folder: Path, *other: Path, code: int = 0, rtol: float = 1e-4, **options: bool) -> str:
    """What `sae-repro verify` prints in `folder`; code 2: the fault that it names."""
    flags = {"verbose": False, "record": False} | options
    if code == 2:
        with pytest.raises(StudyError) as fault:
            command(folder, next(iter(other), None), rtol, **flags)
        return str(fault.value)
    lines, ended = command(folder, next(iter(other), None), rtol, **flags)
    assert ended == code
    return "".join(f"{line}\n" for line in lines)


def test_a_study_is_identical_to_the_recorded_one_on_machines_that_are_listed(
    recorded: Path, copied: Callable[[Path], Path]
) -> None:
    folder = copied(recorded)
    (folder / "reports" / "notes.md").write_text("my own\n")
    assert verify(folder) == "identical to the recorded study (4 files)\n"
    for words in ("added", "renewed"):
        assert f"{MACHINES}: " in (said := verify(folder, record=True)) and words in said
    with (folder / MACHINES).open(encoding="utf-8", newline="") as file:
        (line,) = csv.DictReader(file)
    assert tuple(line) == COLUMNS
    assert line["result"] == "identical" and line["checksum"] == line["recorded"]
    assert line["bits"] == "portable" and line["python"] and line["torch"]
    assert verify(folder) == "identical to the recorded study (4 files)\n"
    execute("dvc", "repro", "--force", "-q", cwd=folder)
    assert (folder / MACHINES).is_file(), "no stage's, which DVC would delete"
    execute("rm", "-r", ".dvc/cache", cwd=folder)
    assert verify(folder) == "identical to the recorded study (4 files)\n"


def test_what_differs_is_said_with_its_size_and_its_cause(
    recorded: Path, copied: Callable[[Path], Path]
) -> None:
    folder = copied(recorded)
    params, code = folder / "params.yaml", folder / "make.py"
    params.write_text(params.read_text().replace("0.5", "0.5000005"))
    execute("dvc", "repro", "-q", cwd=folder)
    said = verify(folder, rtol=1e-5)
    assert said.startswith("equal to the recorded study within 1e-05, not to the bit: 1 of 4 files")
    assert "reports/tables/cells.csv: line 2 (topk), column fvu: 0.5000005 against 0.5" in said
    assert "other bits: artifacts/make" in said
    assert "1 picture of these data: not counted (reports/tables/cells.png)" in said
    assert said.endswith("likely cause: other params: value\n") and said.count("\n") == 1
    said = verify(folder, verbose=True, rtol=1e-7, code=1)
    assert said.count("\n") == 4
    assert "not the recorded study within 1e-07: 1 of 4 files differ, 1 number in them" in said
    verify(folder, record=True)
    assert ",1 of 4 files differ" in (folder / MACHINES).read_text().replace('"', "")
    execute("git", "checkout", "-q", "params.yaml", "dvc.lock", "reports", cwd=folder)
    code.write_text(code.read_text().replace(", 2]", ", 3]"))
    assert "not up to date: make (`dvc repro`)" in verify(folder, code=1)
    execute("dvc", "repro", "-q", cwd=folder)
    said = verify(folder)
    assert said.startswith("no number differs from the recorded study (4 files); other bits: ")
    assert said.endswith("likely cause: other code: make.py (make)\n")
    execute("git", "checkout", "-q", ".", cwd=folder)
    (folder / "requirements.lock").write_text("not-there==1.0\nnumpy==1.0\n")
    execute("dvc", "repro", "-q", cwd=folder)
    assert f"versions of libraries: numpy 1.0 (there: {version('numpy')})" in verify(folder)


def test_a_processor_that_was_not_recorded_is_named(
    recorded: Path, copied: Callable[[Path], Path]
) -> None:
    """As another processor would, the stage makes other bits of the same inputs."""
    folder = copied(recorded)
    report = folder / "reports/tables/cells.csv"
    report.write_text(report.read_text().replace("0.5", "nan"))
    said = verify(folder, rtol=1e9, code=1)
    assert "cells.csv: line 2 (topk), column fvu: nan against 0.5" in said
    assert "likely cause: a kind of machine not confirmed yet" in said or "AVX2" in said
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("portable", "native"))
    assert "likely cause: native bits, which follow the processor" in verify(folder, code=1)


def test_what_was_damaged_or_never_made_is_told(
    recorded: Path, copied: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copied(recorded)
    made = folder / "artifacts/make/w.json"
    made.unlink()
    made.write_text("[0.5, 9, 9]")
    said = verify(folder, code=1)
    assert "artifacts/make: modified since its stage made it" in said
    missing = "artifacts/make: missing: nothing to compare; run `dvc repro` first"
    execute("rm", "-r", "artifacts", cwd=folder)
    assert missing in verify(folder, code=2)
    execute("git", "clone", "-q", str(folder), str(tmp_path / "clone"), cwd=tmp_path)
    said = verify(tmp_path / "clone", code=2)  # no artifacts and no cache
    assert missing in said and f"`dvc pull {tmp_path}/clone/dvc.yaml` where a DVC remote" in said
    (folder / MACHINES).write_text("processor\n")
    execute("dvc", "repro", "-q", cwd=folder)
    assert "machines.csv: not as `sae-repro verify --record` writes it" in verify(
        folder, record=True, code=2
    )
    execute("git", "rm", "-q", "--cached", "dvc.lock", cwd=folder)
    execute("git", "commit", "-qm", "Nothing recorded", cwd=folder)
    assert "no recorded study: git's HEAD has no dvc.lock" in verify(folder, code=2)
    assert "run in a study's folder" in verify(tmp_path, code=2)
    (tmp_path / "params.yaml").write_text("value: 0.5\n")
    assert "not a git repository" in verify(tmp_path, code=2)
    assert "--record: is for a comparison with the recorded study" in verify(
        folder, folder, record=True, code=2
    )
