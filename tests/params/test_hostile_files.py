"""`check` of a params.yaml from anybody: ok, or lines that say what is wrong, soon."""

import importlib
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from sae_repro.cli import app, check
from sae_repro.errors import StudyError, one_line
from sae_repro.params import load, parse, read_cells, read_yaml
from sae_repro.params.axes import AXES
from sae_repro.stage import StageContext, declared_params

from .mutants import ESCAPED, ODD, mutant
from .studies import random_study
from .test_check import STUDY, sae_repro

ROOT = Path(__file__).resolve().parents[2]
STAGES = tuple(read_yaml(ROOT / "dvc.yaml")["stages"])
FILES: dict[str, Any] = {
    **STUDY,
    "corpus": {"source": {"kind": "files", "files": {"a.txt": "0" * 64}, "columns": ["text"]}},
    "recipes": {"shared": {"lr": 1e-3, "prefix_shares": [0.5, 0.5]}},
    "judge": {"kind": "replay", "model": "m", "prompts": {"label": {"path": "p", "sha256": "0"}}},
}
SHIPPED = [ROOT / "params.yaml", *sorted((ROOT / "studies/templates").glob("*.yaml"))]
PATIENCE = 10  # seconds, for what hangs; nothing here takes one


@contextmanager
def patience() -> Iterator[None]:
    def hangs(*_: object) -> None:
        raise AssertionError(f"hangs, or takes more than {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def spelled(study: dict[str, Any], folder: Path) -> str:
    path = folder / "spelled.yaml"
    YAML().dump(study, path)
    return path.read_text()


TUNE: dict[str, Any] = {
    "tune": {
        "trials": 4, "seed": 1, "objectives": {"fvu": "minimize"}, "constraints": {"l0": 40},
        "pruner": {"min_steps": 1000},
        "all": {"lr": {"low": 1e-3, "high": 0.1, "log": True}, "target_l0": {"values": [4, 8]}},
        "recipes": {"topk": {"activation": "topk", "expansion": 4},
                    "l1": {"recipe": "l1", "expansion": {"values": [2, 4]}, "lambda": 0.1}},
    }
}  # fmt: skip


def says(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a refusal, each of them plain; none where the study in `folder` is accepted."""
    try:
        with patience():
            check(folder)
    except StudyError as error:
        lines = str(error).split("\n")
        assert all(line and one_line(line) == line for line in lines), lines
        assert not any(line.lstrip().startswith("ok") for line in lines), lines
        assert len(lines) <= 130
        return lines
    finally:
        printed = capsys.readouterr().out.splitlines()
        assert len(printed) <= 2 and all(line.startswith("ok: ") for line in printed), printed
    return []


def check_stages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage's parameters are read as they are in a study that `check` accepts."""
    monkeypatch.chdir(folder)
    study = load()
    for name in STAGES:
        context = StageContext(name, declared_params(name, ROOT / "dvc.yaml"))
        section = getattr(importlib.import_module(f"sae_repro.params.{name}"), name.title())
        assert context.section(section, name) == getattr(study, name)
        if "seed" in context.declared:
            assert context.value("seed") == study.seed
            assert type(context.value("seed")) is int
        if "cells" in context.declared:
            cells = read_cells(context.value("recipes"), context.value("cells"))
            assert cells == study.cells


@pytest.mark.parametrize("cases", [20_000])
def test_damaged_and_hostile_files_are_refused_in_lines(
    cases: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(cases)
    studies = [(study, spelled(study, tmp_path)) for study in (STUDY, FILES)]
    whole = [(read_yaml(path), path.read_text()) for path in SHIPPED]
    accepted = 0
    for number in range(cases):
        study, text = rng.choice(whole if rng.random() < 0.02 else studies)
        content = mutant(rng, study, text)
        (tmp_path / "params.yaml").write_bytes(content)
        try:
            refused = says(tmp_path, capsys)
            if not refused:
                accepted += 1
                if accepted % 10 == 1:
                    check_stages(tmp_path, monkeypatch)
        except Exception as error:
            error.add_note(f"case {number}: {content[:3000]!r}")
            raise
    assert cases / 100 < accepted < cases / 2, "the mutants are all alike"


@pytest.mark.parametrize("cases", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_and_hostile_searches_are_refused_in_lines(
    cases: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(cases)
    study = {**STUDY, "recipes": {"l1": {"penalty": "l1"}}}
    (tmp_path / "params.yaml").write_text(spelled(study, tmp_path))
    (tmp_path / "tune").mkdir()
    text = spelled(TUNE, tmp_path)
    accepted = 0
    for number in range(cases):
        content = mutant(rng, TUNE, text) if number else text.encode()
        (tmp_path / "tune/params.yaml").write_bytes(content)
        try:
            accepted += not says(tmp_path, capsys)
        except Exception as error:
            error.add_note(f"case {number}: {content[:3000]!r}")
            raise
    assert cases / 100 < accepted < cases / 2, "the mutants are all alike"


@pytest.mark.parametrize("value", ODD, ids=lambda value: ascii(value)[:20])
def test_an_odd_value_anywhere_is_refused_or_read(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = spelled(FILES, tmp_path)
    for line in [line for line in text.splitlines() if ": " in line]:
        key = line.rpartition(": ")[0]
        (tmp_path / "params.yaml").write_text(text.replace(line, f"{key}: {value}"))
        says(tmp_path, capsys)
        (tmp_path / "params.yaml").write_text(text.replace(line, f"{line}\n{value}: {{}}"))
        says(tmp_path, capsys)


@pytest.mark.parametrize("escaped", ESCAPED)
def test_no_terminal_obeys_what_a_file_holds(escaped: str, tmp_path: Path) -> None:
    text = spelled({**FILES, "x": 1}, tmp_path).replace("x: 1\n", f"{escaped}: {escaped}\n")
    (tmp_path / "params.yaml").write_text(
        text.replace("columns:\n", f"{escaped}: 3\n    columns:\n")
    )
    done = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert not done.output
    assert isinstance(done.exception, StudyError)
    assert {one_line(line) for line in str(done.exception).split("\n")} == {
        line for line in str(done.exception).split("\n") if line.startswith(str(tmp_path))
    }


@pytest.mark.slow
def test_the_command_ends_with_two_and_no_traceback(tmp_path: Path) -> None:
    rng, text = random.Random(2), spelled(STUDY, tmp_path)
    for _ in range(40):
        (tmp_path / "params.yaml").write_bytes(mutant(rng, STUDY, text))
        done = sae_repro("check", cwd=tmp_path)
        assert done.returncode in (0, 2), done.stderr
        assert "Traceback" not in done.stderr
        assert bool(done.stderr) == (done.returncode == 2)


def test_whatever_bears_the_files_name_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    makers = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "dangling link": lambda: path.symlink_to("nowhere"),
        "circle": lambda: path.symlink_to(path),
        "huge": lambda: path.write_bytes(b"# 23456\n" * 2_000_000),
        "bytes": lambda: path.write_bytes(b"\xff\xfe" + "a: 1".encode("utf-16-le")),
        "empty": path.touch,
    }
    for kind, make in makers.items():
        make()
        with patience(), pytest.raises(StudyError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: "), kind
        assert "\n" not in str(caught.value), kind
        path.rmdir() if kind == "folder" else path.unlink()


def test_what_is_long_but_within_limits_is_read(tmp_path: Path) -> None:
    """1,000 cells, each with a recipe at the end of the longest chain of them."""
    recipes = {f"r{n}": {"recipe": f"r{n + 1}"} for n in range(19)} | {"r19": {"expansion": 4}}
    cells = {
        f"c{n}": {"recipe": "r0", "activation": "topk", "k": 8, "seed": n} for n in range(1000)
    }
    text = spelled({**STUDY, "recipes": recipes, "cells": cells}, tmp_path)
    (tmp_path / "params.yaml").write_text(text)
    with patience():
        assert len(load(tmp_path / "params.yaml").cells) == 1000
    (tmp_path / "params.yaml").write_text(text.replace("r19:\n", "r19:\n    recipe: r20\n  r20:\n"))
    with pytest.raises(StudyError, match=r"recipes\.r\d+\.recipe = r\d+: more than 20 recipes"):
        load(tmp_path / "params.yaml")


def test_random_studies_are_accepted_and_of_every_kind() -> None:
    rng = random.Random(0)
    studies = [random_study(rng, STUDY) for _ in range(120)]
    cells = [cell for study in studies for cell in parse(study).cells.values()]
    for axis, rows in AXES.items():
        assert {getattr(cell, axis) for cell in cells} == set(rows), axis
