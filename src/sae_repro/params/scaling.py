"""Families of cells by their budgets: widths × training tokens, × sparsities.

    cells: {topk: {recipe: topk, k: 16, scaling: {expansion: [1, 2, 4, 8], tokens: [50_000, …]}}}

One entry of params.yaml stands for a cell per combination, `topk-x8-tokens-50k` and so on: for the
stages they are cells like others. Each number of tokens is a training of its own, as a learning
rate that has not decayed yet makes a checkpoint half-way no training of half the length (J.
Hoffmann et al. 2022, arXiv:2203.15556, section 3).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Annotated, Any

from pydantic import Field, model_validator

from sae_repro.params.base import Count, Many, Section

SCALING = "scaling"
"""The key by which an entry of `cells` is a family."""

LEAST_VALUES = 3
"""Of the widths, and of what they are crossed with: two values show no curve."""

MOST_CELLS = 1000
"""Of a family."""

Positive = Annotated[float, Field(gt=0)]
PREFIXES = {"expansion": "x", "k": "k", "lambda": "l1-", "target_l0": "l0-", "tokens": "tokens-"}
"""Of an axis' value in the name of a cell, in this order."""
SPARSITY = ("k", "lambda", "target_l0")


class Scaling(Section):
    """Budgets whose combinations are the cells of a family; compare fits a law to their loss."""

    expansion: Annotated[Many[Annotated[float, Field(gt=0, le=1024)]], Field(min_length=3)] = Field(
        description="K / D of the family's cells, rising"
    )
    tokens: Many[Count] = Field(
        (), description="training tokens, rising; none: as the entry says, for all cells"
    )
    k: Many[Count] = Field((), description="topk, batchtopk: latents per token, rising")
    lambda_: Many[Positive] = Field(
        (), alias="lambda", description="weights of the penalty, rising"
    )
    target_l0: Many[Positive] = Field((), description="target latents per token, rising")
    hold_out: bool = Field(
        True,
        description="whether the largest cell is left out of the fit, and its loss is predicted",
    )

    @model_validator(mode="after")
    def _budgets_fit(self) -> "Scaling":
        axes = self.axes
        problems = [
            f"{name} = {', '.join(f'{v:g}' for v in values)}: must rise"
            for name, values in axes.items()
            if any(a >= b for a, b in pairwise(values))
        ]
        sparsities = [name for name in SPARSITY if name in axes]
        if len(sparsities) > 1:
            problems.append(f"{' and '.join(sparsities)}: choose one of them")
        if not any(len(v) >= LEAST_VALUES for name, v in axes.items() if name != "expansion"):
            problems.append(
                f"tokens, {', '.join(SPARSITY)}: one of them needs {LEAST_VALUES} values or more, "
                "or there is no law beside that of the width"
            )
        cells = math.prod(map(len, axes.values()))
        if cells > MOST_CELLS:
            problems.append(f"{cells:,} cells; at most {MOST_CELLS:,}")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def axes(self) -> dict[str, tuple[float, ...]]:
        """The values of each axis that has some, in the order of `PREFIXES`."""
        written = (self.expansion, self.k, self.lambda_, self.target_l0, self.tokens)
        return {name: values for name, values in zip(PREFIXES, written, strict=True) if values}


@dataclass(frozen=True)
class Family:
    """A family: its budgets, and its cells by name."""

    scaling: Scaling
    cells: Mapping[str, Mapping[str, Any]]
    """The choices of each, with the values of the axes filled in."""


def family(name: str, entry: Mapping[str, Any], scaling: Scaling) -> Family:
    """The family that `entry` of params.yaml's cells stands for; ValueError, a line per fault."""
    axes = scaling.axes
    double = [axis for axis in axes if entry.get(axis) is not None]
    if double:
        raise ValueError(
            "\n".join(f"{axis}: both in the entry and in {SCALING}; delete one" for axis in double)
        )
    rest = {key: value for key, value in entry.items() if key != SCALING}
    return Family(
        scaling,
        {
            "-".join([name, *map(_part, axes, values)]): rest | dict(zip(axes, values, strict=True))
            for values in product(*axes.values())
        },
    )


def _part(axis: str, value: float) -> str:
    """`x8`, `tokens-250k`: an axis' value as a part of a cell's name."""
    for size, letter in ((10**9, "b"), (10**6, "m"), (10**3, "k")):
        if axis == "tokens" and value % size == 0:
            return f"{PREFIXES[axis]}{value // size}{letter}"
    text = str(value) if isinstance(value, int) else f"{value:.12g}"
    return PREFIXES[axis] + text.replace(".", "p").replace("e-", "em").replace("+", "")
