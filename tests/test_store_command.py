"""The command `store`: what it shows, checks, fills and prunes."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sae_repro import sharedstore
from sae_repro.cellstore import CellStore
from sae_repro.cli import app
from sae_repro.files import write_json
from sae_repro.sharedstore import ADDRESS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study's folder with three finished cells, made before there was a shared store."""
    monkeypatch.delenv(ADDRESS, raising=False)
    sharedstore._opened.cache_clear()
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    cells = CellStore(tmp_path / ".sae-repro" / "cells")
    for key in ("aa", "bb", "cc"):
        with cells.making(key) as folder:
            assert folder is not None
            write_json(folder / "train.json", {"key": key})
            (folder / "weights").write_bytes(bytes(500_000))
    (tmp_path / "team").mkdir()
    return tmp_path


def store(study: Path, *options: str, code: int = 0) -> list[str]:
    result = CliRunner().invoke(app, ["store", str(study), *options], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout.splitlines()


def shared(study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ADDRESS, str(study / "team"))
    sharedstore._opened.cache_clear()
    return study / "team"


def test_without_a_shared_store_it_shows_the_one_here(study: Path) -> None:
    here, none = store(study)
    assert here == f"here: {study / '.sae-repro/cells'}: 3 entries, 1.5 MB"
    assert none.startswith("shared: none; SAE_REPRO_STORE = ")


@pytest.mark.parametrize("option", [["--verify"], ["--offer"], ["--prune", "3"]])
def test_a_change_needs_a_shared_store(study: Path, option: list[str]) -> None:
    with pytest.raises(sharedstore.StudyError, match="SAE_REPRO_STORE: not set"):
        store(study, *option)


def test_what_was_made_before_is_offered_once(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    team = shared(study, monkeypatch)
    (study / ".sae-repro/cells/bb/weights").write_bytes(b"damaged")
    assert store(study)[1] == f"shared: {team}: 0 entries, 0.0 MB"
    assert store(study, "--offer")[1] == "offered: 2 entries, 1.0 MB"
    *_, offered, listed, verified = store(study, "--offer", "--verify")
    assert offered == "offered: 0 entries, 0.0 MB"
    assert listed.startswith(f"shared: {team}: 2 entries, 1.0 MB, written 2")
    assert verified == "verified: 2 of 2 entries are whole"
    assert {path.stem for path in team.rglob("*.tar")} == {"aa", "cc"}


def test_damage_is_found_and_named(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    team = shared(study, monkeypatch)
    store(study, "--offer")
    [path] = team.rglob("bb.tar")
    content = bytearray(path.read_bytes())
    content[300_000] ^= 1
    path.write_bytes(content)
    *_, damaged, verified = store(study, "--verify", code=1)
    assert damaged == f"  damaged: {path}"
    assert verified == "verified: 2 of 3 entries are whole"


def test_pruning_by_age(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    team = shared(study, monkeypatch)
    store(study, "--offer")
    assert store(study, "--prune", "1")[1] == "pruned: 0 entries, 0.0 MB"
    assert len(list(team.rglob("*.tar"))) == 3
    assert store(study, "--prune", "0")[1] == "pruned: 3 entries, 1.5 MB"
    assert not list(team.rglob("*.tar"))
