"""Cells as people read them: every field that decides an SAE is named, and no other."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_repro.params import Cell
from sae_repro.params.axes import AXES
from sae_repro.params.axis_labels import ACTIVATION_LABELS
from sae_repro.params.cell_labels import as_trained, fields_read, is_control, sparsity

EXAMPLES = [
    {"expansion": 4, "activation": name, **label.example}
    for name, label in ACTIVATION_LABELS.items()
]
PIN = "0" * 64


@pytest.mark.parametrize("choices", EXAMPLES)
@pytest.mark.parametrize("revival", AXES["revival"])
def test_a_field_is_read_where_the_schema_takes_it(choices: dict[str, Any], revival: str) -> None:
    cell = Cell.model_validate({**choices, "revival": revival})
    read = fields_read(cell)
    refused = set()
    for name, info in Cell.model_fields.items():
        value = getattr(cell, name)
        if name in ("import_", "baseline", "seeds") or value is None:
            continue
        try:
            Cell.model_validate({**choices, "revival": revival, info.alias or name: value})
        except ValueError:
            refused.add(name)
    assert refused
    assert not refused & set(read)
    assert cell.model_fields_set <= set(read)


def test_cells_that_nobody_trained_read_what_they_are_given() -> None:
    assert fields_read(Cell(baseline="pca")) == ("hook", "baseline")
    imported = Cell.model_validate({"import": "folder", "sha256": PIN})
    assert fields_read(imported) == ("hook", "import_", "sha256")
    untrained = Cell(baseline="untrained", activation="topk", expansion=4, k=3)
    assert {"baseline", "activation", "expansion", "k"} <= set(fields_read(untrained))
    assert "lr" not in fields_read(untrained)


def test_controls_are_what_was_not_trained_or_reads_a_model_that_was_not() -> None:
    topk = {"activation": "topk", "expansion": 4, "k": 3}
    assert is_control(Cell(baseline="neurons"))
    assert is_control(Cell.model_validate({**topk, "hook": "untrained/blocks.0.hook_resid_post"}))
    assert is_control(Cell.model_validate({**topk, "frozen": "decoder"}))
    assert not is_control(Cell.model_validate({**topk, "hook": "blocks.0.hook_resid_post"}))


@pytest.mark.parametrize(
    ("choices", "label"),
    [({"activation": "topk", "k": 16}, "k = 16"),
     ({"penalty": "l1", "lambda": 1e-2}, "λ = 0.01"),
     ({"activation": "gated", "penalty": "l1", "lambda": 1e-2, "target_l0": 12}, "L0 → 12")],
)  # fmt: skip
def test_sparsity_says_what_was_set(choices: dict[str, Any], label: str) -> None:
    assert sparsity(Cell.model_validate({"expansion": 4, **choices})) == label


@given(st.sampled_from(EXAMPLES), st.integers(0, 9), st.floats(1e-5, 1e-1))
def test_a_cell_is_found_again_from_its_record(
    choices: dict[str, Any], seed: int, lr: float
) -> None:
    trained = Cell.model_validate({**choices, "seed": seed, "lr": lr})
    record = trained.model_dump(mode="json", by_alias=True)
    edited = Cell(expansion=2, activation="topk", k=1)  # params.yaml as it is by now
    assert as_trained(edited, record) == trained
