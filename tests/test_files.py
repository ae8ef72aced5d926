"""Atomic writes: the whole file or none, and no files left by killed writers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sae_repro.files import replacing, replacing_folder, write_text


def test_an_error_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".figures.{dead.pid}.tmp").mkdir()
    (tmp_path / f".figures.{dead.pid}.tmp" / "x.svg").write_text("half")
    (tmp_path / f".a.txt.{dead.pid}.tmp").write_text("half")
    alive = tmp_path / f".figures.{os.getppid()}.tmp"
    alive.mkdir()
    with replacing_folder(tmp_path / "figures") as folder:
        (folder / "y.svg").write_text("whole")
    write_text(tmp_path / "a.txt", "whole")
    assert {p.name for p in tmp_path.iterdir()} == {"figures", "a.txt", alive.name}
