"""What a study will train, and what it will take, by trainings that were done before."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sae_repro.cli.planning import lines_of

from .params.test_check import STUDY

COSTS = """sae,D,K,tokens,cpu_seconds
a/seed-0,64,128,100000,2
a/seed-1,64,128,100000,4
b,64,512,100000,8
c,32,256,100000,99
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A family of 9 cells with two seeds, an SAE and a baseline."""
    family: dict[str, Any] = {"activation": "topk", "k": 8, "seeds": [0, 1], "scaling": {
        "expansion": [1, 2, 16], "tokens": [5120, 10_240, 102_400]}}  # fmt: skip
    cells = {"law": family, "one": {"expansion": 8, "activation": "topk", "k": 4, "tokens": 5200},
             "neurons": {"baseline": "neurons"}}  # fmt: skip
    raw = {**STUDY, "train": {"batch_size": 512}, "cells": cells}
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(raw, file)
    return tmp_path


def rows(lines: list[str]) -> dict[str, list[str]]:
    return {row.split()[0]: row.split()[1:] for row in lines[0].splitlines()[2:]}


def test_each_training_is_listed_with_its_size_and_time(study: Path) -> None:
    (study / "reports").mkdir()
    (study / "reports/costs.csv").write_text(COSTS)
    lines = list(lines_of(study))
    found = rows(lines)
    assert len(found) == 10 and "neurons" not in found
    # two seeds of 10,240 tokens, 64 (2 K + 8 k) operations each
    operations = 2 * 10_240 * 64 * (2 * 128 + 8 * 8)
    assert found["law-x2-tokens-10240"] == ["128", "10,240", "2", f"{operations:.2g}", "0.6"]
    # whole batches; K = 512 is known
    assert found["one"][:3] == ["512", "5,120", "1"] and found["one"][-1] == "0.4"
    # K = 64: that of the nearest; K = 1,024: in proportion to the nearest
    assert found["law-x1-tokens-102400"][-1] == "6.1"
    assert found["law-x16-tokens-102400"][-1] == "32.8"
    assert lines[-1].startswith("\n10 cells, 19 SAEs: ") and "about 52 s of CPU" in lines[-1]


def test_the_root_s_trainings_are_named_by_a_plain_path(study: Path) -> None:
    inner = study / "studies/mine"
    inner.mkdir(parents=True)
    text = (study / "params.yaml").read_text()
    (inner / "params.yaml").write_text(text.replace("root: .\n", "root: ../..\n"))
    (study / "reports").mkdir()
    (study / "reports/costs.csv").write_text(COSTS)
    assert list(lines_of(inner))[-1].endswith(f"by {study / 'reports/costs.csv'}")


@pytest.mark.parametrize("costs", ["", "a,b\n1,2\n", COSTS.replace(",64,", ",48,"), "D,K\n\x00"])
def test_without_comparable_trainings_no_time_is_named(study: Path, costs: str) -> None:
    (study / "reports").mkdir()
    (study / "reports/costs.csv").write_text(costs)
    lines = list(lines_of(study))
    assert {row[-1] for row in rows(lines).values()} == {"–"}
    assert "no comparable training" in lines[-1] and "about" not in lines[-1]
