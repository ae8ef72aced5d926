"""Damage to every file of a finished study: named by whoever reads it, or mended; never used."""

import functools
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from sae_repro.autoencoders import SAE, Weights, load, save
from sae_repro.cellstore import CellStore
from sae_repro.cli.describe import cells_table
from sae_repro.errors import StudyError
from sae_repro.files import sha256_folder
from sae_repro.latents import activations_of
from sae_repro.params import load as load_study
from sae_repro.pins import model_digest
from sae_repro.readers.shards import ActivationStore
from sae_repro.stage import STATE, code_digest
from sae_repro.track import send

from ..damage import ALL, damage
from .conftest import small_text
from .in_process import D_IN, HOOKS, ORDINARY, carry_out
from .in_process import study as small_study

pytestmark = pytest.mark.slow

HOOK = HOOKS[0]
STAGES = ("corpus", "subject", "extract", "train", "evaluate", "judge", "control", "compare")
READERS = {
    "corpus": ("subject", "extract", "evaluate", "judge", "control", "report"),
    "subject": ("extract", "evaluate", "report"),
    "extract": ("train", "evaluate", "judge", "report", "tune"),
    "train": ("evaluate", "judge", "compare", "report", "track"),
    "evaluate": ("judge", "compare", "report", "track"),
    "judge": ("compare", "report"),
    "control": ("compare",),
}
"""The stages that read what a stage wrote, as dvc.yaml has them."""
MENDED = ("train", "evaluate")
"""The stages that keep what is finished, and mend it when they run."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A whole study's folder and its params.yaml: cells of one seed, of several, and imported."""
    folder = tmp_path_factory.mktemp("finished") / "study"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SAE_REPRO_JOBS", "1")
        settings = small_study(small_text(Path("text.jsonl")), n_tuning_tokens=300)
        settings["corpus"]["tuning"] = 0.1
        Path("theirs").mkdir()
        weights = [torch.eye(D_IN), torch.zeros(D_IN), torch.eye(D_IN), torch.zeros(D_IN)]
        save(SAE("standard", Weights(*weights)), folder / "theirs")
        settings["compute"] = {"bits": "portable"}
        settings["evaluate"]["references"] = [10]
        settings["cells"] = {
            "topk": ORDINARY["topk"],
            "matryoshka": ORDINARY["batchtopk"],
            "theirs": {"import": "theirs", "sha256": model_digest(folder / "theirs")},
        }
        topk = {"activation": "topk", "expansion": 4, "k": {"low": 1, "high": 3}}
        search = {"trials": 2, "batch": 2, "objectives": {"fvu": "minimize"}}
        space = {**search, "recipes": {"topk": topk}}
        Path("tune").mkdir()
        for path, content in (("params.yaml", settings), ("tune/params.yaml", {"tune": space})):
            with Path(path).open("w") as file:
                YAML().dump(content, file)
        carry_out(settings, *STAGES)
    return folder, settings


@pytest.fixture
def study(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], None]]:
    """In a copy of the finished study: runs a stage there, in this process."""
    folder, settings = finished
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "damaged"))
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///unused.db")
    # of the same code each time: hashing it takes longer than all else that is done here
    monkeypatch.setattr("sae_repro.stage.code_digest", functools.cache(code_digest))
    before = torch.get_deterministic_debug_mode()
    yield lambda name: carry_out(settings, name)
    torch.set_deterministic_debug_mode(before)


def refused(read: Callable[[], object], path: Path) -> bool:
    """Whether `read` names `path` in one line with a step; False where it goes through."""
    try:
        read()
    except StudyError as error:
        message = str(error)
        assert str(path) in message and "\n" not in message, message
        assert "makes it again" in message, message
        return True
    return False


def damaged(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each file in `folder` in each way, one at a time; whole again afterwards."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for kind in ALL:
            if damage(path, kind):
                yield path, kind
            path.write_bytes(content)


def read_shards() -> None:
    store = ActivationStore(Path("artifacts/extract"))
    store.seen()
    for split in ("train", "calibration", "tuning", "validation"):
        for hook in HOOKS:
            store.activations(hook, split).whole()
        store.index(split).whole()


@pytest.mark.parametrize("stage", READERS)
def test_a_stage_names_what_was_changed_in_what_it_reads(
    study: Callable[[str], None], stage: str
) -> None:
    cases = 0
    before = sha256_folder(Path("artifacts"))
    for path, kind in damaged(Path("artifacts") / stage):
        for reader in READERS[stage]:
            if path.suffix == ".npy" and stage == "extract" and "windows" not in path.parts:
                # read where it is used, shard by shard
                assert refused(read_shards, path) or refused(mean, path), (path, kind)
            elif "windows" in path.parts and reader != "evaluate":
                continue
            else:
                assert refused(lambda reader=reader: study(reader), path), (path, kind, reader)
            cases += 1
    assert sha256_folder(Path("artifacts")) == before
    assert cases
    print(f"{stage}: {cases} cases, all named")


def mean() -> None:
    for hook in HOOKS:
        ActivationStore(Path("artifacts/extract")).mean(hook)


@pytest.mark.parametrize("stage", MENDED)
def test_a_stage_mends_what_was_changed_in_its_own_cells(
    study: Callable[[str], None], stage: str
) -> None:
    before = sha256_folder(Path("artifacts"))
    cases = 0
    for path, kind in damaged(Path("artifacts") / stage):
        study(stage)
        assert sha256_folder(Path("artifacts")) == before, (path, kind)
        cases += 1
    print(f"{stage}: {cases} cases, all mended")


def forget() -> None:
    """As in a new process: nothing that evaluations share is in memory."""
    for name, module in list(sys.modules.items()):
        if name.startswith("sae_repro.evaluate"):
            for shared in vars(module).values():
                if hasattr(shared, "cache_clear"):
                    shared.cache_clear()


@pytest.mark.parametrize("power_loss", [False, True])
def test_a_damaged_store_never_becomes_a_result(
    study: Callable[[str], None], capsys: pytest.CaptureFixture[str], power_loss: bool
) -> None:
    """Every entry is damaged, each in another way, or all of its files emptied; all heal."""
    before = sha256_folder(Path("artifacts"))
    entries = sorted(path for path in (STATE / "cells").iterdir() if path.is_dir())
    for number, entry in enumerate(entries):
        files = sorted(path for path in entry.rglob("*") if path.is_file())
        if power_loss:
            for path in files:
                path.write_bytes(b"")
        else:
            kind = ALL[number % len(ALL)]
            assert any(damage(path, kind) for path in files[number % len(files) :] + files)
        assert CellStore(STATE / "cells").find(entry.name) is None
    forget()
    for stage in MENDED:
        shutil.rmtree(Path("artifacts") / stage)
        study(stage)
    assert sha256_folder(Path("artifacts")) == before
    # a worker's lines are its own, but for the only worker's
    assert capsys.readouterr().err.count("; made again") == len(entries)


@pytest.mark.usefixtures("study")
def test_commands_name_it_too() -> None:
    params = load_study("params.yaml")
    readers: dict[str, list[Callable[[], object]]] = {
        "corpus": [lambda: activations_of("the cat", hook=HOOK)],
        "subject": [lambda: activations_of("the cat", hook=HOOK)],
        "train": [
            lambda: load("artifacts/train/matryoshka"),
            lambda: send(Path(), Path(), params.cells, params.track),
        ],
        "evaluate": [
            lambda: cells_table(params, Path()),
            lambda: send(Path(), Path(), params.cells, params.track),
        ],
    }
    for stage, reads in readers.items():
        for path, kind in damaged(Path("artifacts") / stage):
            if path == Path("artifacts") / stage / "contents.json" and kind == "delete":
                continue  # as of a stage that was stopped: its cells are still checked
            named = [refused(read, path) for read in reads]
            assert any(named), (path, kind)
