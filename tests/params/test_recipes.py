"""A cell is its own choices over its recipe's, however these are spread over recipes."""

from collections.abc import Mapping
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from sae_repro.params import Cell, Study, load, parse, read_cells
from sae_repro.params.recipes import NULL_IS_A_VALUE, merged

from .test_check import ROOT, STUDY

# choices that go with one another in any combination
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "expansion": st.sampled_from([2, 4, 8.5]),
        "lr": st.sampled_from([1e-3, 0.01, 3e-3]),
        "seed": st.integers(0, 3),
        "normalisation": st.sampled_from(["none", "expected_norm"]),
        "adam_eps": st.sampled_from([1e-8, 6.25e-10]),
        "grad_clip": st.sampled_from([1.0, 2]),
        "hook": st.sampled_from(["blocks.0.hook_mlp_out", "blocks.1.hook_resid_post"]),
    },
)
NULLED = st.dictionaries(
    st.sampled_from(["lr", "seed", "normalisation", "adam_eps", "grad_clip"]), st.none()
)
LINES = st.lists(st.tuples(CHOICES, NULLED), min_size=1, max_size=4)  # a cell, its recipe, …
NEEDED = {"activation": "topk", "k": 8, "expansion": 4}


def study_of(recipes: Mapping[str, Any], cells: Mapping[str, Any]) -> dict[str, Any]:
    hooks = ["blocks.1.hook_resid_post", "blocks.0.hook_mlp_out"]
    return {**deepcopy(STUDY), "extract": {"hooks": hooks}, "recipes": recipes, "cells": cells}


def chained(lines: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """A study whose one cell is the first line, and whose recipes are the others."""
    entries = [{**choices, **nulled} for choices, nulled in lines]
    for number, entry in enumerate(entries[1:]):
        entries[number]["recipe"] = f"r{number + 1}"
        entries[number + 1] = entry
    *_, last = entries
    last.update({key: value for key, value in NEEDED.items() if key not in last})
    recipes = {f"r{number}": entry for number, entry in enumerate(entries) if number}
    return study_of(recipes, {"cell": entries[0]})


@settings(max_examples=60, deadline=None)
@given(LINES)
def test_a_cell_is_its_own_choices_over_its_recipes(
    lines: list[tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    raw = chained(lines)
    expected = dict(NEEDED)
    for choices, nulled in reversed(lines):
        expected |= {**choices, **nulled}
    for key in [k for k, v in expected.items() if v is None and k not in NULL_IS_A_VALUE]:
        del expected[key]
    alone = Cell.model_validate(expected)
    for cells in (parse(raw).cells, read_cells(raw["recipes"], raw["cells"])):
        assert cells["cell"] == alone
        assert cells["cell"].identity() == alone.identity()
        assert cells["cell"].model_fields_set == alone.model_fields_set


@settings(max_examples=60, deadline=None)
@given(LINES)
def test_a_study_written_out_reads_as_itself(
    lines: list[tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    study = parse(chained(lines))
    text = StringIO()
    YAML().dump(study.model_dump(mode="json", by_alias=True, exclude_unset=True), text)
    again = parse(YAML(typ="safe").load(text.getvalue()))
    assert again == study
    assert {n: c.identity() for n, c in again.cells.items()} == {
        n: c.identity() for n, c in study.cells.items()
    }


def test_anchors_are_read_as_the_recipes_of_the_same_name(tmp_path: Path) -> None:
    """As files had them before recipes were part of the schema."""
    rest = {k: v for k, v in study_of({}, {}).items() if k not in ("recipes", "cells")}
    text = StringIO()
    YAML().dump(rest, text)
    for name, tail in {
        "anchors": "recipes:\n  base: &base {activation: topk, expansion: 4}\n"
        "  more: &more {<<: *base, lr: 1e-2}\n"
        "cells:\n  a: {<<: *base, k: 3}\n  b: {<<: *more, k: 3, lr: 3e-3}\n",
        "recipes": "recipes:\n  base: {activation: topk, expansion: 4}\n"
        "  more: {recipe: base, lr: 1e-2}\n"
        "cells:\n  a: {recipe: base, k: 3}\n  b: {recipe: more, k: 3, lr: 3e-3}\n",
    }.items():
        (tmp_path / name).write_text(text.getvalue() + tail)
    assert load(tmp_path / "anchors").cells == load(tmp_path / "recipes").cells


def test_a_recipe_that_no_cell_uses_is_no_fault() -> None:
    raw = study_of({"unused": {"k": 3}}, STUDY["cells"])
    assert parse(raw).cells == parse(STUDY).cells


SHIPPED = ("params.yaml", "tune/params.yaml", *(
    str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("studies/**/*.yaml"))
    if path.name not in ("dvc.yaml", "claims.yaml") and path.parent.match("studies/*")
))  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_a_value_set_by_dvc_is_one_changed_line(name: str, tmp_path: Path) -> None:
    """`dvc exp run -S` writes the file anew: shipped files are laid out as DVC writes them."""
    hydra = pytest.importorskip("dvc.utils.hydra")
    before = (ROOT / name).read_text()
    key = "tune.seed" if name == "tune/params.yaml" else "seed"
    (tmp_path / "params.yaml").write_text(before)
    hydra.apply_overrides(tmp_path / "params.yaml", [f"{key}=7"])
    lines = zip(
        before.splitlines(), (tmp_path / "params.yaml").read_text().splitlines(), strict=True
    )
    assert [(old.strip(), new.strip()) for old, new in lines if old != new] == [
        ("seed: 0", "seed: 7")
    ]


@pytest.mark.parametrize(
    ("override", "choice", "value"),
    [
        ("cells.topk-x8-k16.k=24", "k", 24),
        ("+cells.topk-x8-k16.expansion=3", "expansion", 3),  # its recipe's key
        ("recipes.topk.expansion=3", "expansion", 3),
        ("+cells.topk-x8-k16.lr=3e-3", "lr", 0.003),
        ("+cells.topk-x8-k16.grad_clip=null", "grad_clip", None),
        ("+cells.topk-x8-k16.adam_eps=null", "adam_eps", 1e-8),
    ],
)
def test_a_value_set_by_dvc_arrives_as_its_type(
    override: str, choice: str, value: Any, tmp_path: Path
) -> None:
    hydra = pytest.importorskip("dvc.utils.hydra")
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    hydra.apply_overrides(path, [override])
    got = getattr(load(path).cells["topk-x8-k16"], choice)
    assert (got, type(got)) in [(value, type(value)), (value, float)]
    others = {
        name: cell for name, cell in load(path).cells.items()
        if "topk" not in name or (name != "topk-x8-k16" and override.lstrip("+")[0] == "c")
    }  # fmt: skip
    before: Study = load(ROOT / "params.yaml")
    assert all(before.cells[name] == cell for name, cell in others.items())


def test_a_field_by_its_other_name_overrides_too() -> None:
    assert merged({"recipe": "l1", "lambda_": 2.0}, {"l1": {"lambda": 1.0}}) == {"lambda": 2.0}
