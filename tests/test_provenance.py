"""Provenance: commit, lock and versions, exact or absent."""

import subprocess
import sys
from pathlib import Path

import pytest

from sae_repro.errors import StudyError
from sae_repro.provenance import (
    PACKAGES,
    git_state,
    host,
    lock_hashes,
    read_lock,
    repository_url,
    versions,
)

LOCK = """\
schema: '2.0'
stages:
  train@topk-1e-2:
    cmd: python ./stages/train.py
    deps:
    - path: artifacts/extract
      hash: md5
      md5: 0123.dir
      size: 12
    outs:
    - path: artifacts/train/topk-1e-2
      hash: md5
      md5: 4567.dir
  corpus:
    cmd: python ./stages/corpus.py
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "--no-verify", "-m", "first")
    return tmp_path


def test_the_commit_and_whether_tracked_files_differ(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert git_state(repository) == {"git_commit": commit, "git_dirty": "false"}
    (repository / "untracked").write_text("2")
    assert git_state(repository)["git_dirty"] == "false"
    (repository / "file").write_text("2")
    assert git_state(repository) == {"git_commit": commit, "git_dirty": "true"}


def test_a_study_below_the_root_is_of_the_same_commit(repository: Path) -> None:
    (repository / "studies").mkdir()
    assert git_state(repository / "studies") == git_state(repository)


def test_without_a_repository_or_git_the_state_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) == {}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == {}


def test_the_locks_hashes_of_one_stage(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(LOCK)
    assert lock_hashes(read_lock(tmp_path), "train@topk-1e-2") == {
        "deps": {"artifacts/extract": "0123.dir"},
        "outs": {"artifacts/train/topk-1e-2": "4567.dir"},
    }
    nothing: dict[str, dict[str, str]] = {"deps": {}, "outs": {}}
    assert lock_hashes(read_lock(tmp_path), "corpus") == nothing
    assert lock_hashes(read_lock(tmp_path), "train@other") == nothing


def test_without_a_lock_there_are_no_hashes(tmp_path: Path) -> None:
    assert lock_hashes(read_lock(tmp_path), "corpus") == {"deps": {}, "outs": {}}


def test_versions_are_those_installed() -> None:
    import numpy
    import torch

    found = versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (found["numpy"], found["torch"]) == (numpy.__version__, torch.__version__)
    assert set(found) <= {"python", *PACKAGES}


def test_the_host_has_a_name() -> None:
    assert all(host().values())


@pytest.mark.parametrize(
    ("origin", "page"),
    [
        ("https://github.com/them/sae.git", "https://github.com/them/sae"),
        ("https://me:hunter2@github.com/them/sae.git", "https://github.com/them/sae"),
        ("https://hunter2@git.host.org:8443/them/sae", "https://git.host.org/them/sae"),
        ("https://me:hun@ter2@github.com/them/sae/", "https://github.com/them/sae"),
        ("git@gitlab.com:group/sub/sae.git", "https://gitlab.com/group/sub/sae"),
        ("ssh://git@github.com:22/them/sae.git", "https://github.com/them/sae"),
        ("/home/me/sae", ""),
        ("../sae", ""),
        ("my.folder/sae", ""),
        ("file:///home/me/sae", ""),
        (None, ""),
    ],
)
def test_the_origins_page_has_no_password(repository: Path, origin: str | None, page: str) -> None:
    if origin is not None:
        subprocess.run(["git", "remote", "add", "origin", origin], cwd=repository, check=True)
    assert repository_url(repository) == page


@pytest.mark.parametrize(
    "stages",
    ["[]", "text", "{train: []}", "{train: {outs: [1]}}", "{train: {deps: {}}}",
     "{train: {outs: [{md5: 0123}]}}"],
)  # fmt: skip
def test_a_lock_that_dvc_did_not_write_is_named(stages: str, tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(f"stages: {stages}\n")
    with pytest.raises(StudyError, match=r"dvc\.lock: not as DVC writes it; `git checkout"):
        read_lock(tmp_path)
