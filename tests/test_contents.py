"""Sealed folders: any damage to any file is named, and what is renamed is on the disk before."""

import os
from pathlib import Path

import pytest

from sae_repro.contents import (
    CONTENTS,
    Changed,
    check,
    check_if_sealed,
    examine,
    seal,
    sealed_folder,
)
from sae_repro.errors import StudyError

from .damage import ALL, damage

FILES = {"a.json": b'{"fvu": 0.125}', "b.npy": bytes(range(64)), "in/c.txt": b"12", "in/empty": b""}


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """artifacts/train: a sealed cell, and files beside it."""
    with sealed_folder(tmp_path / "artifacts/train") as folder:
        with sealed_folder(folder / "cell") as inner:
            fill(inner)
        fill(folder)
    return tmp_path / "artifacts/train"


def fill(folder: Path) -> None:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("kind", ALL)
def test_damage_to_any_file_is_named_with_the_stage_that_makes_it_again(
    sealed: Path, kind: str
) -> None:
    check(sealed)
    for path in [path for path in sealed.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        if not damage(path, kind):
            continue
        with pytest.raises(StudyError) as error:
            check(sealed)
        assert str(path) in str(error.value)
        assert "`dvc repro --force --single-item train` makes it again" in str(error.value)
        path.write_bytes(content)
        check(sealed)


@pytest.mark.parametrize("place", ["more.safetensors", "cell/more", "cell/in/more"])
def test_a_file_that_nobody_made_is_named_and_hidden_ones_do_not_count(
    sealed: Path, place: str
) -> None:
    (sealed / ".DS_Store").touch()
    check(sealed)
    (sealed / place).touch()
    with pytest.raises(StudyError, match=f"{place}: not written by the stage"):
        check(sealed)


def test_parts_are_read_alone_and_the_others_must_be_there(sealed: Path) -> None:
    (sealed / "b.npy").write_bytes(b"changed")
    check(sealed, "a.json", "in")
    with pytest.raises(StudyError, match=r"b\.npy: changed"):
        check(sealed, "b.npy")
    (sealed / "b.npy").unlink()
    with pytest.raises(StudyError, match=r"b\.npy: missing"):
        check(sealed, "a.json")


def test_only_what_was_never_sealed_passes_unread(sealed: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    check_if_sealed(tmp_path / "theirs")
    with pytest.raises(StudyError, match=r"contents\.json: missing"):
        check(tmp_path / "theirs")
    for odd in (
        "",
        "[]",
        "{}",
        '{"files": 1}',
        '{"files": {"a": NaN}}',
        '{"files": {"a": "\\ud800"}}',
    ):
        (sealed / CONTENTS).write_text(odd)
        with pytest.raises(StudyError, match=r"contents\.json: missing or damaged"):
            check_if_sealed(sealed)
    with pytest.raises(StudyError, match="nowhere: missing"):
        check(tmp_path / "nowhere")


def test_known_hashes_are_not_computed_again(tmp_path: Path) -> None:
    fill(tmp_path)
    seal(tmp_path, {"a.json": "0" * 64})
    with pytest.raises(Changed, match=r"a\.json: changed"):
        examine(tmp_path)


def test_a_power_loss_after_the_rename_leaves_every_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not synced when the folder took its name is emptied, as ext4 and XFS do."""
    synced: set[int] = set()
    fsync, rename = os.fsync, Path.replace

    def note(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def lose(self: Path, target: Path) -> Path:
        for path in (self, *self.rglob("*")):
            if path.stat().st_ino not in synced and path.is_file():
                path.write_bytes(b"")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "replace", lose)
    with sealed_folder(tmp_path / "folder") as folder:
        fill(folder)
    examine(tmp_path / "folder")
    assert (tmp_path / "folder").stat().st_ino in synced
    assert tmp_path.stat().st_ino in synced, "the name itself"
