"""The cell store: what keys follow from, and folders brought up to date."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sae_repro.cellstore import CellStore, deliver
from sae_repro.files import read_json, write_json


@dataclass(frozen=True)
class WriteKey:
    """A job whose folder says its key."""

    key: str
    made: list[str]

    def make(self, folder: Path) -> None:
        self.made.append(self.key)
        write_json(folder / "summary.json", {"value": self.key})


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
