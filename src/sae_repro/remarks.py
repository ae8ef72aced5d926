"""Remarks on a finished cell: results that must not be read like those of the others."""

from collections.abc import Mapping
from typing import Any

from sae_repro.params import Cell

TOLERANCE = 0.1
"""Relative distance from the target L0 beyond which a cell has missed it."""


def missed(cell: Cell, metrics: Mapping[str, float | None]) -> list[str]:
    """What held-out `metrics` (metrics.json) say against an SAE, most serious first.

    A missed target: L0 differs by more than `TOLERANCE` from k or target_l0. No reconstruction:
    FVU ≥ 1, which the mean of the activations reaches. Baselines aim at nothing and have none.
    """
    if cell.baseline is not None:
        return []
    found = []
    fvu, l0, target = metrics.get("fvu"), metrics.get("l0"), cell.l0_target
    if fvu is not None and fvu >= 1:
        found.append(f"FVU {fvu:.3g}: no better than the mean")
    if target is not None and l0 is not None and abs(l0 - target) > TOLERANCE * target:
        found.append(f"L0 {l0:.3g}, target {target:g} missed")
    return found


def missed_on(cell: Cell, measured: Mapping[str, Any]) -> list[str]:
    """`missed` of an evaluated cell's metrics.json; of several seeds, each one's with its name.

    Not of their mean, which may be at the target while no seed is.
    """
    if cell.seeds is None:
        return missed(cell, measured["metrics"])
    return [
        f"{place}: {remark}"
        for place, sae in cell.members().items()
        for remark in missed(sae, measured["seeds"][place]["metrics"])
    ]


def remarks_on(cell: Cell, measured: Mapping[str, Any]) -> list[str]:
    """All remarks on an evaluated cell: what it missed, what its training never came to, and what
    could not be measured of it."""
    return [
        *missed_on(cell, measured),
        *measured.get("unreached", ()),
        *measured.get("not_measured", ()),
    ]
