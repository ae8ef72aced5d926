"""A cell as people read it: its sparsity, whether it is a control, the fields that it reads.

Its architecture's name is in `params.architecture`. Apart from `params.cell`, so that a change of
wording retrains nothing.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sae_repro.params.axes import readers
from sae_repro.params.cell import Cell
from sae_repro.params.cell_rules import READ_UNTRAINED
from sae_repro.params.division import Divided
from sae_repro.params.hooks import on_random_weights
from sae_repro.params.joint import read_by

NOT_TRAINED = ("import_", "sha256", "baseline")


def is_control(cell: Cell) -> bool:
    """Whether it is a negative control: nothing, or not all, was trained, or on random weights.

    Such a cell is in the tables of cells, but no point of a frontier or a grid.
    """
    return (
        cell.baseline is not None
        or cell.frozen is not None
        or on_random_weights(read_by(cell) or "")
    )


def sparsity(cell: Cell) -> str:
    """The setting of its sparsity: `k = 16`, `L0 → 12` (target_l0) or `λ = 0.01`."""
    if cell.import_ is not None:
        return "imported"
    if cell.baseline is not None and cell.k is None:
        return "untrained"
    if cell.l0_target is None:
        return f"λ = {cell.lambda_:g}"
    return f"k = {cell.k}" if cell.k is not None else f"L0 → {cell.l0_target:g}"


def fields_read(cell: Cell) -> tuple[str, ...]:
    """The fields of `Cell` that decide its SAE, in the schema's order; the others mean nothing."""
    if cell.import_ is not None:
        return ("hook", "import_", "sha256")
    if cell.is_basis:
        return ("hook", "baseline")
    if cell.baseline is not None:
        read = {"baseline", *READ_UNTRAINED, *cell.activation_row.reads_untrained}
        return tuple(name for name in Cell.model_fields if name in read)
    return tuple(
        name for name in Cell.model_fields if name not in NOT_TRAINED and _reads(cell, name)
    )


def _reads(cell: Cell, field: str) -> bool:
    if field in ("skip", "target_hook"):
        return cell.target_hook is not None
    if field in ("hook", "hooks"):
        return (field == "hooks") == (cell.hooks is not None)
    if field == "apply_b_dec_to_input":
        return cell.target_hook is None
    if field in Divided.model_fields:
        return cell.parts > 1
    axis_and_values = readers(field)
    return axis_and_values is None or getattr(cell, axis_and_values[0]) in axis_and_values[1]


def as_trained(cell: Cell, choices: Mapping[str, Any]) -> Cell:
    """The cell that `choices` of a train.json describe; `cell` of params.yaml may have moved on."""
    if cell.import_ is not None or cell.is_basis:
        return cell
    defaults = Cell.model_construct().model_dump(mode="json", by_alias=True)
    changed = {name: v for name, v in choices.items() if v != defaults.get(name)}
    try:
        return Cell.model_validate({"expansion": choices.get("expansion"), **changed})
    except ValidationError:  # of a release whose rules were others
        return cell
