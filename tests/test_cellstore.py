"""The cell store: what keys follow from, and folders brought up to date."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from sae_repro.cellstore import CellStore, deliver
from sae_repro.errors import StudyError
from sae_repro.files import read_json, replacing_folder, sha256_folder, write_json

from .damage import ALL, damage


@dataclass(frozen=True)
class WriteKey:
    """A job whose folder says its key."""

    key: str
    made: list[str]

    def make(self, folder: Path) -> None:
        self.made.append(self.key)
        write_json(folder / "summary.json", {"value": self.key, "number": 12})
        (folder / "weights").write_bytes(bytes(range(100)))


class Study:
    """A cell of the given seeds, brought up to date again and again."""

    def __init__(self, folder: Path) -> None:
        self.out, self.store = folder / "out", CellStore(folder / "cells")
        self.made: list[str] = []

    def deliver(self, *places: str) -> None:
        jobs = {place: WriteKey(f"key-{place.strip('.')}", self.made) for place in places}

        def make_all(missing: Sequence[WriteKey]) -> None:
            for job in missing:
                with self.store.making(job.key) as folder:
                    assert folder is not None
                    job.make(folder)

        deliver(self.out, {"cell": jobs}, self.store, summary="summary.json", make_all=make_all)

    def folders(self) -> set[str]:
        return {path.name for path in (self.out / "cell").iterdir() if path.is_dir()}


def test_seeds_lie_where_params_say_and_no_other_stays(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.deliver("seed-0", "seed-7")
    assert study.folders() == {"seed-0", "seed-7"}
    study.deliver("seed-0")
    assert study.folders() == {"seed-0"}
    study.deliver(".")
    assert study.folders() == set()
    assert read_json(study.out / "cell" / "summary.json")["cell"] == "cell"
    assert study.made == ["key-seed-0", "key-seed-7", "key-"]


def test_a_finished_cell_is_not_touched_whatever_the_order_of_its_seeds(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.deliver("seed-10", "seed-2")
    before = (study.out / "cell").stat().st_ino
    study.deliver("seed-10", "seed-2")
    study.deliver("seed-2", "seed-10")
    assert (study.out / "cell").stat().st_ino == before


def test_a_damaged_folder_comes_back_from_the_store(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.deliver("seed-0", "seed-1")
    summary = study.out / "cell" / "seed-1" / "summary.json"
    whole = summary.read_bytes()
    (summary.parent / "more").touch()
    study.deliver("seed-0", "seed-1")
    assert summary.read_bytes() == whole
    assert not (summary.parent / "more").exists()
    assert len(study.made) == 2


@pytest.mark.parametrize("kind", [*ALL, "more"])
@pytest.mark.parametrize("delivered", [True, False])
def test_a_damaged_entry_is_never_a_result(
    tmp_path: Path, kind: str, delivered: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file of it; made again where the delivered folder is gone, too."""
    study = Study(tmp_path)
    study.deliver(".")
    entry, cell = study.store.folder / "key-", study.out / "cell"
    whole = sha256_folder(study.out)
    for number, path in enumerate(sorted(p for p in entry.iterdir())):
        if kind == "more":
            (entry / f"more-{path.name}").touch()
        else:
            assert damage(path, kind)
        if not delivered:
            (cell / "weights").unlink()
        study.made.clear()
        study.deliver(".")
        assert sha256_folder(study.out) == whole
        assert study.made == ([] if delivered else ["key-"])
        said = capsys.readouterr().err
        assert said.count("; made again") == (not delivered)
        assert delivered or said.startswith(str(entry))
        if delivered:  # for the next round
            with study.store.making("key-") as folder:
                assert folder is not None
                WriteKey("key-", []).make(folder)
            assert study.store.find("key-") == entry, number
            capsys.readouterr()


def test_a_changed_digit_in_the_summary_is_damage_too(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.deliver("seed-0")
    summary = study.out / "cell/seed-0/summary.json"
    whole = summary.read_bytes()
    summary.write_bytes(whole.replace(b"12", b"13"))
    study.deliver("seed-0")
    assert summary.read_bytes() == whole


def test_a_disk_that_keeps_nothing_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae_repro.cellstore.sealed_folder", replacing_folder)
    with pytest.raises(StudyError, match="key-: damaged since it was made by this run"):
        Study(tmp_path).deliver(".")
