"""Checks of classes that a table gives to documents: one for each, and few enough to learn."""

from collections.abc import Sequence

from sae_repro.errors import StudyError, shown
from sae_repro.tables.cells import Cell

NUMBERS, EACH = 20, 20
"""More different numbers than the first, of fewer documents each than the second, are no classes:
a concept needs some fifty held-out rows in each of two halves to be scored at all."""


def check_classes(what: str, label_n: Sequence[Cell], document_n: Sequence[Cell]) -> None:
    """StudyError where a document has two classes, or they are measured numbers.

    `what` names the column in messages; both are of rows.
    """
    of: dict[Cell, Cell] = {}
    for document, label in zip(document_n, label_n, strict=True):
        known = of.setdefault(document, label)
        if known != label:
            raise StudyError(
                f"{what}: rows of document {shown(document)} carry {_named(known)} and "
                f"{_named(label)}, and a document has one class; name documents whose rows share "
                "it, or leave the column out"
            )
    classes = {label for label in of.values() if label is not None}
    labelled = sum(label is not None for label in of.values())
    if len(classes) > NUMBERS and labelled < EACH * len(classes) and all(map(_number, classes)):
        raise StudyError(
            f"{what}: {len(classes):,} different numbers for {labelled:,} documents; a class is of "
            "many documents: write ranges of the numbers (0–9, 10–19, …) into the table, or leave "
            "the column out"
        )


def _named(label: Cell) -> str:
    return "none" if label is None else shown(label)


def _number(label: Cell) -> bool:
    try:
        float(str(label))
    except ValueError:
        return False
    return True
