"""A family of cells, declared by its budgets, is the cells that could be written one by one."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.errors import StudyError
from sae_repro.params import parse, read_cells

from .test_recipes import study_of

RECIPES = {"topk": {"activation": "topk", "lr": 0.01}}
WIDTHS = [1, 2.5, 8]


def rising(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=3, max_size=5, unique=True).map(sorted)


@settings(max_examples=30, deadline=None)
@given(
    rising(st.sampled_from([0.5, 1, 1.5, 2, 8, 16.25])),
    rising(st.integers(1000, 10**7)),
    rising(st.integers(1, 64)),
)
def test_a_family_is_its_cells_written_out(
    widths: list[float], tokens: list[int], ks: list[int]
) -> None:
    entry = {"recipe": "topk", "seeds": [0, 1]}
    scaling = {"expansion": widths, "tokens": tokens, "k": ks}
    cells = read_cells(RECIPES, {"first": {**entry, "expansion": 1, "k": 2},
                                 "law": {**entry, "scaling": scaling}})  # fmt: skip
    written = [(x, k, t) for x in widths for k in ks for t in tokens]
    assert next(iter(cells)) == "first" and len(cells) == 1 + len(written)
    for (x, k, t), cell in zip(written, list(cells.values())[1:], strict=True):
        assert (
            cell
            == read_cells(RECIPES, {"one": {**entry, "expansion": x, "k": k, "tokens": t}})["one"]
        )


def test_names_say_what_a_cell_is() -> None:
    entry = {"penalty": "l1", "scaling": {"expansion": WIDTHS, "lambda": [1e-5, 0.01, 3],
                                          "tokens": [1_000_000]}}  # fmt: skip
    assert list(read_cells({}, {"law": entry}))[::4] == [
        "law-x1-l1-1em05-tokens-1m",
        "law-x2p5-l1-0p01-tokens-1m",
        "law-x8-l1-3-tokens-1m",
    ]


def test_a_study_takes_them_for_cells() -> None:
    entry = {
        "recipe": "topk",
        "k": 4,
        "scaling": {"expansion": WIDTHS, "tokens": [999, 2000, 3500]},
    }
    study = parse(study_of(RECIPES, {"law": entry}))
    assert len(study.cells) == 9 and study.cells["law-x8-tokens-2k"].tokens == 2000


@pytest.mark.parametrize(
    ("cells", "line"),
    [
        ({"law": {"scaling": {"expansion": [1, 2], "tokens": [1, 2, 3]}}},
         "cells.law.scaling.expansion = [1, 2]"),
        ({"law": {"scaling": {"expansion": WIDTHS, "tokens": [2, 1, 3]}}}, "must rise"),
        ({"law": {"scaling": {"expansion": WIDTHS}}}, "one of them needs 3 values"),
        ({"law": {"scaling": {"expansion": WIDTHS, "k": [1, 2, 3], "lambda": [1, 2, 3]}}},
         "choose one of them"),
        ({"law": {"k": 1, "scaling": {"expansion": WIDTHS, "k": [1, 2, 3]}}},
         "cells.law.k: both in the entry and in scaling"),
        ({"law": {"scaling": {"expansion": WIDTHS, "width": 3, "k": [1, 2, 3]}}},
         "cells.law.scaling.width = 3: unknown key"),
        ({"law": {"scaling": {"expansion": list(range(1, 41)), "k": list(range(1, 41))}}},
         "1,600 cells"),
        ({"law": {"recipe": "topk", "scaling": {"expansion": WIDTHS, "k": [1, 2, 3]}},
          "law-x8-k3": {"recipe": "topk", "expansion": 8, "k": 5}}, "is there already"),
        ({"law": {"recipe": "nix", "scaling": {"expansion": WIDTHS, "k": [1, 2, 3]}}},
         "cells.law-x1-k1.recipe = nix"),
    ],
)  # fmt: skip
def test_a_fault_is_a_line_with_its_key(cells: Mapping[str, Any], line: str) -> None:
    with pytest.raises(StudyError) as read:
        read_cells(RECIPES, cells)
    with pytest.raises(StudyError) as checked:
        parse(study_of(RECIPES, cells))
    assert line in str(read.value) and line in str(checked.value)


def test_recipes_are_no_families() -> None:
    recipes = {"topk": {"activation": "topk", "scaling": {"expansion": WIDTHS, "k": [1, 2, 3]}}}
    with pytest.raises(StudyError, match=r"recipes\.topk\.scaling: a cell's, not a recipe's"):
        parse(study_of(recipes, {"one": {"recipe": "topk", "k": 2, "expansion": 2}}))
