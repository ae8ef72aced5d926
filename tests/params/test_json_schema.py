"""The JSON Schemas for editors: in step with the code, true of every study, strict about names."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.cli.schema import schemas
from sae_repro.params import read_yaml

from .json_schema import problems

ROOT = Path(__file__).resolve().parents[2]
STUDIES = [ROOT / "params.yaml", *sorted((ROOT / "studies").glob("*/params.yaml"))]
SCHEMAS = schemas()


def found(name: str, values: Any) -> list[str]:
    return list(problems(SCHEMAS[name], values, {**SCHEMAS[name], "files": SCHEMAS}))


def as_an_editor_reads(path: Path) -> Any:
    """YAML 1.2 to the letter: digits in groups are a string there."""
    text = re.sub(r"\b(\d+(?:_\d+)+)\b", r'"\1"', path.read_text())
    return YAML(typ="safe").load(text)


def test_the_files_in_the_root_are_what_the_command_writes(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["schema", "--to", str(tmp_path)]).exit_code == 0
    for name in SCHEMAS:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), "run `sae-repro schema`"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.parent.name)
def test_every_study_fits_its_schema_as_editors_read_it_and_as_we_do(path: Path) -> None:
    assert found("params.schema.json", read_yaml(path)) == []
    assert found("params.schema.json", as_an_editor_reads(path)) == []


def test_tune_params_fit_their_schema_as_editors_read_them_and_as_we_do() -> None:
    path = ROOT / "tune" / "params.yaml"
    assert found("tune.schema.json", read_yaml(path)) == []
    assert found("tune.schema.json", as_an_editor_reads(path)) == []


@pytest.mark.parametrize("path", [*STUDIES, ROOT / "tune/params.yaml"], ids=str)
def test_the_first_line_names_the_schema(path: Path) -> None:
    match = re.fullmatch(
        r"# yaml-language-server: \$schema=(\S+)", path.read_text().splitlines()[0]
    )
    assert match
    name = "tune.schema.json" if path.parent.name == "tune" else "params.schema.json"
    assert (path.parent / match[1]).resolve() == ROOT / name


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda s: s["cells"]["pca"].update(lamda=1), "cells.pca.lamda: false"),
        (lambda s: s["cells"].update({"Bad.name": {}}), "cells.Bad.name: false"),
        (lambda s: s["cells"]["pca"].update(expansion=0), "cells.pca.expansion: exclusiveMinimum"),
        (lambda s: s["cells"]["pca"].update(penalty="l3"), "cells.pca.penalty: enum"),
        (lambda s: s["train"].update(epochs="many"), "train.epochs: pattern"),
        (lambda s: s["train"].update(epochs=True), "train.epochs: type"),
        (lambda s: s["corpus"]["source"].update(kind="web"), "corpus.source: oneOf"),
        (lambda s: s.pop("extract"), ": required"),
    ],
)  # fmt: skip
def test_a_fault_in_a_study_is_marked(change: Any, problem: str) -> None:
    values = deepcopy(read_yaml(ROOT / "params.yaml"))
    change(values)
    assert problem in found("params.schema.json", values)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"learning_rate": 1}, "tune.all.learning_rate: false"),
        ({"seeds": [0, 1]}, "tune.all.seeds: false"),
        ({"lr": {"lo": 1, "high": 2}}, "tune.all.lr: anyOf"),
        ({"penalty": "l3"}, "tune.all.penalty: anyOf"),
        ({"penalty": {"values": ["l1"], "log": True}}, "tune.all.penalty: anyOf"),
    ],
)
def test_a_fault_in_what_is_tuned_is_marked(change: dict[str, Any], problem: str) -> None:
    values = deepcopy(read_yaml(ROOT / "tune" / "params.yaml"))
    values["tune"]["all"] |= change
    assert found("tune.schema.json", values) == [problem]


def test_every_key_has_a_description() -> None:
    for name, schema in SCHEMAS.items():
        for section, definition in schema["$defs"].items():
            for key, rule in definition["properties"].items():
                described = key == "kind" or "description" in rule
                assert described, f"{name}: {section}.{key}"
