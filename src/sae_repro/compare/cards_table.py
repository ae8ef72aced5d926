"""Metric cards as the last section of METRICS.md, and as METRICS.csv."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sae_repro.compare.cards import (
    APART,
    CONFOUNDERS,
    COPY,
    ENOUGH,
    LEAST_CELLS,
    Card,
    cards,
)
from sae_repro.compare.collect import Result
from sae_repro.compare.controls import read_trials
from sae_repro.compare.tables import ABSENT, number
from sae_repro.files import write_text
from sae_repro.remarks import TOLERANCE

MARKS = f"""\
Cells: trained SAEs with fewer latents on per token than a basis has directions (L0 < D), without
those that were trained on fewer tokens than their like. Those are compared with controls that are
as sparse as some control SAE (L0 within {TOLERANCE:.0%}). `separates`: at least {ENOUGH:.0%} of
them are better than every control by more than {APART:g} units of noise; `useless`: fewer are, and
no finding rests on the metric. Controls that count (`must beat` above): all on the cell's hook,
random weights or not; or, where activations or agreement of seeds are measured, SAEs on the same
activations, for a basis (neurons, PCA) reconstructs exactly by construction. A failure, such as a
hole, needs something learnt: no control counts. `copy of` FVU, L0 or K: the metric ranks the cells
as that does, |rank correlation| ≥ {COPY:g}."""

COLUMNS = f"""\
- noise: standard deviation of one SAE's value under re-sampling of what the metric draws (in
  parentheses), from the width of its own 95 % interval; median over cells. Over seeds: root mean
  square of the standard deviations of cells with several seeds; a cell with one seed is given it.
- better than a control: difference for the better in standard errors, median over cells. The error
  joins both kinds of noise of both sides; of a mean over n seeds, seeds and draws of latents count
  1/√n, while documents and concepts are the same for all seeds.
- truth: rank correlation with F1 of matched atoms over the trials of `control`, ranked within each
  world; > 0: better where more atoms are found.
- per doubling: change for the better per doubling of the training tokens, in units of one SAE's
  noise, over cells that differ in nothing else.
- ρ with L0, K, FVU: rank correlation over the cells of the hook that has most (at least
  {LEAST_CELLS}); in parentheses with the other two held fixed."""

_NAMES = {"l0": "L0", "K": "K", "fvu": "FVU"}


def write_cards(folder: Path, results: Sequence[Result], artifacts: Path) -> str:
    """Write METRICS.csv; the section of METRICS.md."""
    found = cards(results, read_trials(artifacts / "control"))
    if not found:
        return ""
    controls = list(dict.fromkeys(name for card in found for name in card.separation))
    frame = pd.DataFrame([_row(card, controls) for card in found])
    write_text(folder / "METRICS.csv", frame.to_csv(index=False, lineterminator="\n"))
    printed = pd.DataFrame([_printed(card, controls) for card in found])
    absent = ""
    if not any(card.lengths for card in found):
        printed = printed.drop(columns="per doubling")
        absent = "\n- Per doubling: no cells of different training length."
    body = printed.to_markdown(index=False, disable_numparse=True)
    return f"\n## Cards\n\n{MARKS}\n\n{COLUMNS}{absent}\n\n{body}\n"


def _row(card: Card, controls: Sequence[str]) -> dict[str, object]:
    return {
        "metric": card.name,
        "mark": card.mark,
        "copy_of": " ".join(card.copies),
        "noise": card.noise,
        "noise_over_seeds": card.noise_seeds,
        "cells": card.cells,
        "cells_above_all": card.above,
        **{f"above:{name}": card.separation.get(name) for name in controls},
        "truth": card.truth,
        "trials": card.trials,
        "per_doubling": card.per_doubling,
        "cells_of_different_length": card.lengths,
        **{
            f"rho_{c}{part}": card.correlation[c][i] if card.correlation else None
            for c in CONFOUNDERS
            for i, part in enumerate(("", "_partial"))
        },
    }


def _printed(card: Card, controls: Sequence[str]) -> dict[str, str]:
    over = card.metric.interval.partition(" over ")[2]
    copies = [f"copy of {_NAMES[name]}" for name in card.copies]
    return {
        "metric": f"`{card.name}`",
        "mark": "; ".join([card.mark, *copies]),
        "noise": f"{number(card.noise)} ({over})" if card.noise == card.noise else ABSENT,
        "over seeds": number(card.noise_seeds),
        "above all": f"{card.above} of {card.cells}" if card.cells else ABSENT,
        **{f"better than {name}": _signed(card.separation.get(name)) for name in controls},
        "truth": _signed(card.truth, 2) if card.trials else "not defined on the worlds",
        "per doubling": _signed(card.per_doubling),
        **{f"ρ with {_NAMES[c]}": _correlation(card, c) for c in CONFOUNDERS},
    }


def _correlation(card: Card, confounder: str) -> str:
    if not card.correlation:
        return ABSENT
    plain, partial = (_signed(value, 2) for value in card.correlation[confounder])
    return f"{plain} ({partial})"


def _signed(value: float | None, decimals: int = 1) -> str:
    if value is None or value != value:
        return ABSENT
    return f"{value:+.{decimals}f}" if abs(value) < 1e4 else ("> 9999" if value > 0 else "< -9999")
