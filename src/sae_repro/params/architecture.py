"""The name of a cell's architecture: one in tables and figures, in MLflow and in DVC's plots."""

from sae_repro.params.axis_labels import (
    ACTIVATION_LABELS,
    BASIS_LABELS,
    FROZEN_LABELS,
    REVIVAL_LABELS,
    TRAINED_AUXILIARY,
    WEIGHTS_LABELS,
)
from sae_repro.params.cell import Cell
from sae_repro.params.hooks import weights_of
from sae_repro.params.joint import read_by


def architecture_of(cell: Cell, *, activation: str | None = None) -> str:
    """Activation, penalty, prefixes and revival, as far as they are not the usual; no sparsity.

    `activation` is what an imported SAE was found to have. Negative controls say what they are.
    """
    name = _architecture(cell, activation or cell.activation)
    return name + WEIGHTS_LABELS[weights_of(read_by(cell) or "")]


def _architecture(cell: Cell, activation: str) -> str:
    if cell.import_ is not None:
        return f"imported {activation}"
    if cell.is_basis:
        return BASIS_LABELS[str(cell.baseline)]
    row = ACTIVATION_LABELS[cell.activation]
    base, usual, notes = row.label, row.usual_penalty, []
    if cell.gated_auxiliary == "trained":
        note, usual = TRAINED_AUXILIARY
        notes.append(note)
    if cell.penalty not in ("none", usual):
        notes.append(cell.penalty.replace("_", " "))
    if notes:
        base += f" ({', '.join(notes)})"
    if cell.prefixes != "none":
        ordered = "-ordered" if cell.order == "contribution" else ""
        base = f"matryoshka-{cell.prefixes}{ordered}" + (
            "" if base == "batchtopk" else f" over {base}"
        )
    if cell.hooks is not None:
        base += " crosscoder"
    if cell.target_hook is not None:
        base += " skip transcoder" if cell.skip else " transcoder"
    if cell.baseline == "untrained":
        return f"untrained {base}"
    if cell.frozen is not None:
        base = f"frozen {FROZEN_LABELS[cell.frozen]} {base}"
    if cell.revival == row.usual_revival:
        return base
    return f"{base} {REVIVAL_LABELS[cell.revival]}"
