"""A row of the registry: one metric, or a family of metrics whose names have a parameter."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

COLUMN_SUFFIXES = ("_sd", "_low", "_high")
"""Of a metric's spread over seeds and of its interval's ends in tables: no metric ends so."""

FRACTION, COSINE, CORRELATION = "fraction", "cosine", "correlation"
BOUNDS = {FRACTION: (0.0, 1.0), COSINE: (-1.0, 1.0), CORRELATION: (-1.0, 1.0)}
"""The range of the units that have one."""

Interval = Literal[
    "Wilson over latents",
    "Wilson over concepts",
    "bootstrap over documents",
    "bootstrap over latents",
    "bootstrap over concepts",
    "bootstrap over parents",
    "bootstrap over prompts",
    "Student over seeds",
    "jackknife over seeds",
    "of a further draw",
    "none",
]
Better = Literal["lower", "higher", "none"]
Controls = Literal["all", "sparse", "none"]
Place = Literal[
    "metrics.json",
    "cells.md",
    "matched_l0.md",
    "monosemantic.md",
    "structure.md",
    "control.md",
    "consistency.md",
    "steering.md",
    "findings: against controls",
    "findings: above 0",
    "findings: at equal target L0",
    "frontier",
    "MLflow chart",
]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The definition of a metric, or of a family of metrics with a parameter in the name."""

    name: str
    """As in metrics.json. `<k>` stands for a number, `<kind>` for a word, `[_faint]` for a part
    that a second metric of the row has."""
    definition: str
    unit: str
    source: str = "ours"
    """Paper and section, or "ours"."""
    choice: str = "always"
    """The choice of `evaluate.metrics` that writes it; "always"; "control" for that stage's own."""
    denominator: str | None = None
    """The count of metrics.json over which it is a ratio or a mean; parameters as in `name`."""
    interval: Interval = "none"
    better: Better = "none"
    controls: Controls = "all"
    """The controls that trained SAEs must be better than, or the metric shows nothing learnt: all;
    those as sparse as they on the same activations (a basis reconstructs exactly and has orthogonal
    atoms by construction); none, for a failure, such as a hole: it needs something learnt."""
    shown: tuple[Place, ...] = ()
    shown_for: Mapping[Place, tuple[str, ...]] = field(default_factory=dict)
    """Of a family, the parameters that a place shows; all that were measured where it has none."""

    def __post_init__(self) -> None:
        if self.name.rstrip("]").endswith(COLUMN_SUFFIXES):
            raise ValueError(f"{self.name}: tables use {', '.join(COLUMN_SUFFIXES)} for columns")

    @cached_property
    def base(self) -> str:
        """The name without its optional part."""
        return re.sub(r"\[.*\]", "", self.name)

    @cached_property
    def parameter(self) -> str | None:
        """`<k>`, say, for a family; None for one metric."""
        part = re.search("<.*>", self.name)
        return part.group() if part else None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("".join(map(_part_pattern, re.split(r"(<\w+>|\[\w+\])", self.name))))

    def parameter_of(self, name: str) -> str | None:
        """The parameter of a concrete `name`: "" where the row has none, None if not this row's."""
        match = self._pattern.fullmatch(name)
        return None if match is None else match.groupdict().get("parameter", "")

    def concrete(self, parameter: str) -> str:
        """The name with `parameter` filled in."""
        return self.base.replace(self.parameter or "", parameter) if parameter else self.base

    def denominator_of(self, name: str) -> str | None:
        """The count that is the denominator of the concrete `name`; None where there is none."""
        match = self._pattern.fullmatch(name)
        if match is None or self.denominator is None:
            return None
        groups = match.groupdict()
        filled = re.sub("<.*?>", groups.get("parameter") or "", self.denominator)
        return re.sub(r"\[.*\]", groups.get("option") or "", filled)


def _part_pattern(part: str) -> str:
    if part == "<kind>":
        return r"(?P<parameter>.+)"
    if part.startswith("<"):
        return r"(?P<parameter>[0-9]+)"
    if part.startswith("["):
        return rf"(?P<option>{re.escape(part[1:-1])})?"
    return re.escape(part)
