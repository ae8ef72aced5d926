"""`make repro` ends with the verdict, which does not make a finished run a failed one."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("code", "comment"), [(0, False), (1, True), (2, True)])
def test_make_repro_shows_the_verdict_and_ends_well(
    tmp_path: Path, code: int, comment: bool
) -> None:
    if shutil.which("make") is None:
        pytest.skip("no make")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, script in {
        "dvc": "echo ran $*",
        "sae-repro": f"echo $*: verdict; exit {code}",
    }.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{script}\n")
        (bin_ / name).chmod(0o755)
    (tmp_path / ".ready").touch()
    done = subprocess.run(
        ["make", "-s", "repro", f"VENV={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[:2] == ["ran repro", "verify: verdict"]
    assert ("the run is complete" in done.stdout) == comment == (f"code {code}" in done.stdout)
