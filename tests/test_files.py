"""Atomic writes: the whole file or none, and no files left by killed writers."""

import errno
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sae_repro.errors import StudyError
from sae_repro.files import (
    disk_fault,
    read_json,
    read_object,
    replacing,
    replacing_folder,
    write_text,
)


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


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_what_is_written_obeys_the_umask_whatever_wrote_it(tmp_path: Path, umask: int) -> None:
    def write(folder: Path) -> None:
        (folder / "inner").mkdir()
        for path in (folder / "a", folder / "inner" / "b"):
            path.touch(mode=0o600)

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    before = os.umask(umask)
    try:
        with replacing_folder(tmp_path / "folder") as folder:
            write(folder)
        with replacing(tmp_path / "file") as temporary:
            other = tmp_path / "other"
            other.touch(mode=0o600)
            other.replace(temporary)  # as safetensors does
    finally:
        os.umask(before)
    for name in ("folder/a", "folder/inner/b", "file"):
        assert mode(tmp_path / name) == 0o666 & ~umask


def test_a_folder_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed where it deletes the old folder: the new one has its name by then."""
    for number in range(2):
        with replacing_folder(tmp_path / "folder") as folder:
            (folder / str(number)).touch()

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", die)
        with replacing_folder(tmp_path / "folder") as folder:
            (folder / "2").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["2"]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("artifacts/extract/manifest.json", "`dvc repro --force --single-item extract` makes it"),
        ("artifacts/train/topk/seed-1/train.json", "--single-item train` makes it again"),
        (".sae-repro/tune/x.json", "the next `dvc repro` makes it again"),
        ("models/mine/config.json", "give the whole file: fetch or write it again from where"),
        ("artifacts.json", "give the whole file"),
        ("artifacts/models/mine/config.json", "give the whole file"),
    ],
)
@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff", b"[" * 100_000, b"[1]"])
def test_a_damaged_json_file_is_named_with_the_step_that_helps(
    tmp_path: Path, place: str, says: str, content: bytes | None
) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StudyError) as error:
        read_object(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and says in message
    assert "delete" not in message and "\n" not in message
    if content == b"[1]":
        assert read_json(path) == [1]


def test_a_folder_where_a_json_file_should_be_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"can't be read \(Is a directory\)"):
        read_json(tmp_path)


FAULTS = {
    "the system's own": OSError(errno.ENOSPC, "No space left on device", "artifacts/x"),
    "quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "numpy": OSError("4096 requested and 0 written"),
    "safetensors": RuntimeError("I/O error: No space left on device (os error 28)"),
    "sqlite": RuntimeError("(sqlite3.OperationalError) database or disk is full"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_full_disk_is_one_line_with_a_place_and_a_step(name: str) -> None:
    line = disk_fault(FAULTS[name])
    assert line is not None and "\n" not in line
    assert line.startswith(("artifacts/x", str(Path.cwd()), "/"))
    assert "make room there and run again" in line


def test_other_errors_are_no_full_disk() -> None:
    for error in (OSError(errno.ENOENT, "No such file", "x"), ValueError("28"), KeyError("x")):
        assert disk_fault(error) is None


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EACCES, "Permission denied: let yourself read and write there"),
        (errno.EROFS, "Read-only file system: let yourself"),
        (errno.ENOTDIR, "Not a directory: something else stands in its place"),
        (errno.EMFILE, "Too many open files: raise the limit, as with `ulimit -n"),
        (errno.EIO, "check the disk"),
    ],
)
def test_a_refused_file_is_named_with_a_step(tmp_path: Path, number: int, says: str) -> None:
    line = disk_fault(OSError(number, os.strerror(number), str(tmp_path / "x")))
    assert line is not None and line.startswith(f"{tmp_path / 'x'}: ") and says in line


WRITERS = {
    "text": "Path('x').write_text('0' * 9999)",
    "numpy": "import numpy; numpy.save('x.npy', numpy.zeros(9999))",
    "safetensors": "import torch; from safetensors.torch import save_file; "
    "save_file({'a': torch.zeros(9999)}, 'x.safetensors')",
    "parquet": "import pandas; pandas.DataFrame({'a': range(9999)}).to_parquet('x.parquet')",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_stage_that_can_write_no_more_ends_in_one_line(tmp_path: Path, writer: str) -> None:
    """No file of the process may grow beyond 4 kB: to it, the disk is full."""
    (tmp_path / "params.yaml").write_text("")
    code = f"""
from contextlib import contextmanager
from pathlib import Path
import sae_repro.stage as frame
frame.load = lambda path: type(
    "Study", (), {{"root": ".", "compute": type("Compute", (), {{"bits": "portable"}})}}
)
frame.check_installation = frame.declared_params = frame._dependencies = lambda *_: {{}}
with frame.stage("corpus"):
    {WRITERS[writer]}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "DVC_STAGE": "corpus"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("corpus: ") and "make room there and run again" in line
