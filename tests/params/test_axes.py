"""The rows of the axes agree with one another, with the schema and with the rules of a cell."""

from typing import Any

import pytest
from pydantic import ValidationError

from sae_repro.params import Cell
from sae_repro.params.axes import ACTIVATIONS, ARCHITECTURES, AXES, PENALTIES, REVIVALS, readers
from sae_repro.params.axis_labels import ACTIVATION_LABELS, REVIVAL_LABELS

VALUES = [(axis, name) for axis, rows in AXES.items() for name in rows]


def cell(activation: str, **choices: Any) -> Cell:
    example = ACTIVATION_LABELS[activation].example
    return Cell(expansion=4, activation=activation, **example, **choices)


@pytest.mark.parametrize(("axis", "name"), VALUES)
def test_the_schema_knows_every_value_and_its_fields(axis: str, name: str) -> None:
    row = AXES[axis][name]
    assert row.name == name
    assert set(row.reads) <= set(Cell.model_fields)
    assert f"{name} ({row.description})" in str(Cell.model_fields[axis].description)
    assert name in Cell.model_json_schema()["properties"][axis]["enum"]


@pytest.mark.parametrize(("axis", "name"), VALUES)
def test_a_field_is_refused_where_no_choice_reads_it(axis: str, name: str) -> None:
    for other in AXES[axis].values():
        for field in set(other.reads) - set(AXES[axis][name].reads):
            key = Cell.model_fields[field].alias or field
            value = Cell.model_fields[field].default
            with pytest.raises(ValidationError, match=rf"{key} is read only with {axis}: "):
                Cell.model_validate({"expansion": 4, axis: name, key: value})


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_agrees_with_its_architecture(name: str) -> None:
    row = ACTIVATIONS[name]
    architecture = ARCHITECTURES[row.architecture]
    assert (row.threshold != "none") == ("threshold" in architecture.extra)
    assert (row.l0_set_by == "k") == (readers("k") is not None and "k" in row.reads)
    assert not architecture.reads_k or row.l0_set_by == "k"


def test_tables_have_a_name_for_every_activation_and_revival() -> None:
    assert set(ACTIVATION_LABELS) == set(ACTIVATIONS)
    assert {row.usual_penalty for row in ACTIVATION_LABELS.values()} <= set(PENALTIES)
    assert {row.usual_revival for row in ACTIVATION_LABELS.values()} <= set(REVIVALS)
    assert set(REVIVAL_LABELS) == set(REVIVALS)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_imported_architecture_counts_as_an_activation_that_is_saved_so(name: str) -> None:
    assert ACTIVATIONS[ARCHITECTURES[name].activation].architecture == name


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_setting_of_the_l0_is_required(name: str) -> None:
    row = ACTIVATIONS[name]
    assert cell(name).activation_row is row
    if row.l0_set_by == "k":
        with pytest.raises(ValidationError, match=f"activation {name} needs k"):
            Cell(expansion=4, activation=name)
        with pytest.raises(ValidationError, match=f"sets the sparsity of {name}: penalty must"):
            cell(name, penalty="tanh", lambda_=1.0)
    else:
        with pytest.raises(ValidationError, match=f"nothing keeps {name} sparse: set penalty"):
            Cell(expansion=4, activation=name)


@pytest.mark.parametrize("penalty", [n for n, row in PENALTIES.items() if row.counts])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_counting_penalties_need_a_trained_threshold(name: str, penalty: str) -> None:
    row = ACTIVATIONS[name]
    choices = {"penalty": penalty, "lambda": 1.0, "target_l0": 3}
    if row.l0_set_by == "k":
        return
    if row.threshold == "trained":
        Cell(expansion=4, activation=name, **choices)
    else:
        with pytest.raises(ValidationError, match="a threshold that is trained"):
            Cell(expansion=4, activation=name, **choices)
