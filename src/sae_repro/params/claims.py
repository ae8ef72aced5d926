"""claims.yaml: what has been written of sparse autoencoders, each with the test it is put to.

A claim names the cells that it is read from, one of a few statistics, and the bound that decides,
fixed before the numbers are known. `sae_repro.compare.claims` computes them.
"""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sae_repro.errors import StudyError, did_you_mean
from sae_repro.params.base import Count, Many, Section, Text
from sae_repro.params.recipes import Name
from sae_repro.params.validation import check_section
from sae_repro.params.yaml_files import read_yaml

Axis = Literal[
    "expansion", "K", "k", "lambda", "target_l0", "l0", "training_tokens", "input_offset"
]
"""Columns of cells.csv along which cells are put in order."""
Cells = Annotated[Many[Text], Field(min_length=1)]
Metric = Annotated[str, Field(pattern=r"^[a-z][A-Za-z0-9_]*$", max_length=80)]


class Read(Section):
    """What every statistic of cells has."""

    cells: Cells = Field(
        description="cells by name, * and ? as in file names; of the controls `world: recipe`, "
        "such as `tree d=20: vanilla`"
    )
    metric: Metric = Field(
        description="a metric of cells.csv (or of control_trials.csv), or judged_<column> of "
        "judged_cells.csv"
    )
    over: Literal["seeds", "cells"] = Field(
        "seeds",
        description="what its interval is over: seeds of every cell, 2 or more; or cells, where "
        "the claim is of a grid of them",
    )
    because: Text | None = Field(
        None, description="over: cells: why the cells stand for one another's repetition"
    )

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if (self.over == "cells") != (self.because is not None):
            raise ValueError(
                "because: takes over: cells, and over: cells takes it: one seed decides nothing, "
                "unless the claim is of a grid of cells"
            )
        return self

    @property
    def patterns(self) -> tuple[str, ...]:
        """All patterns of cells that it names."""
        return self.cells


class Mean(Read):
    """Mean of the metric over the cells."""

    kind: Literal["mean"]


class Versus(Read):
    """What compares the cells with others."""

    than: Cells = Field(description="the cells that these are compared with")

    @property
    def patterns(self) -> tuple[str, ...]:
        """All patterns of cells that it names."""
        return (*self.cells, *self.than)


class Difference(Versus):
    """Mean over the cells minus the mean over those of `than`; over: cells, pairs in order."""

    kind: Literal["difference"]


class Ratio(Versus):
    """The same as a ratio, by the difference of logarithms."""

    kind: Literal["ratio"]


class EquivalentSize(Versus):
    """K at which those of `than` have this metric, interpolated, over the cells' own K."""

    kind: Literal["equivalent_size"]
    over: Literal["seeds"] = "seeds"


class Along(Read):
    """What follows the metric along an axis."""

    axis: Axis = Field(description="the column of cells.csv along which the cells are ordered")


class Slope(Along):
    """Change of the metric per doubling of the axis; over: cells, a slope for each series.

    A series is the cells that differ in nothing but the axis.
    """

    kind: Literal["slope"]


class RankCorrelation(Along):
    """Spearman's ρ of the metric and the axis over the cells."""

    kind: Literal["rank_correlation"]
    over: Literal["cells"] = "cells"


class Share(Read):
    """Share of the cells whose metric is at least `bound`."""

    kind: Literal["share"]
    bound: float = Field(description="the least value that counts")
    over: Literal["cells"] = "cells"


class Recorded(Section):
    """A measurement that no run repeats bit for bit, such as a time, as it was recorded."""

    kind: Literal["recorded"]
    value: float = Field(description="what was measured")
    low: float = Field(description="the lower end of its interval")
    high: float = Field(description="the upper end")
    n: Count = Field(description="measurements behind it")
    origin: Text = Field(description="the file and row that it was read from")

    @property
    def patterns(self) -> tuple[str, ...]:
        """All patterns of cells that it names: none."""
        return ()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"low ≤ value ≤ high, and these are {self.low}, {self.value}, "
                             f"{self.high}")  # fmt: skip
        return self


class Untested(Section):
    """Not tested in this study."""

    kind: Literal["untested"]
    reason: Text = Field(description="what the study lacks")

    @property
    def patterns(self) -> tuple[str, ...]:
        """All patterns of cells that it names: none."""
        return ()


Statistic = Annotated[
    Mean | Difference | Ratio | Slope | RankCorrelation | Share | EquivalentSize | Recorded
    | Untested,
    Field(discriminator="kind"),
]  # fmt: skip


class Expected(Section):
    """Where the claim says that the number lies: exactly one of the three."""

    above: float | None = Field(None, description="larger than this")
    below: float | None = Field(None, description="smaller than this")
    within: Annotated[Many[float], Field(min_length=2, max_length=2)] | None = Field(
        None, description="between these two"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(bound is not None for bound in (self.above, self.below, self.within)) != 1:
            raise ValueError("exactly one of above, below and within")
        if self.within is not None and self.within[0] >= self.within[1]:
            raise ValueError(f"within: {list(self.within)}: the lower end first")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """The open range in which the claim says that the number is."""
        if self.within is not None:
            return self.within[0], self.within[1]
        if self.above is not None:
            return self.above, float("inf")
        assert self.below is not None
        return float("-inf"), self.below

    def __str__(self) -> str:
        if self.within is not None:
            return f"within [{self.within[0]:g}, {self.within[1]:g}]"
        return f"> {self.above:g}" if self.above is not None else f"< {self.below:g}"


class Claim(Section):
    """One claim and its test."""

    quote: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="what is claimed, in the words of the source"
    )
    paraphrase: bool = Field(False, description="whether `quote` is in other words")
    source: Text = Field(description="paper and place, address, or published table")
    test: Statistic = Field(description="the number that decides")
    expected: Expected | None = Field(
        None, description="where it lies if the claim holds, fixed before it is measured"
    )
    note: Text | None = Field(None, description="how far the test is the claim")

    @model_validator(mode="after")
    def _decidable(self) -> Self:
        if (self.expected is None) != (self.test.kind == "untested"):
            raise ValueError("expected: every claim has it but one that is untested")
        return self


class Claims(Section):
    """The whole of claims.yaml."""

    claims: dict[Name, Claim] = Field(min_length=1)


def read_claims(path: Path) -> Claims:
    """The checked file at `path`; StudyError with one line per fault."""
    return check_section(Claims, read_yaml(path), source=str(path))


def matching(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The `names` that one of `patterns` fits: by pattern, then in the order of `names`."""
    listed = list(names)
    found = (name for pattern in patterns for name in listed if fnmatchcase(name, pattern))
    return list(dict.fromkeys(found))


def unknown_cells(claims: dict[str, Claim], names: Iterable[str]) -> Iterator[str]:
    """A line for each pattern of `claims` that fits none of the cells' `names`."""
    listed = list(names)
    for name, claim in claims.items():
        for pattern in claim.test.patterns:
            if not matching([pattern], listed):
                yield (
                    f"claims.{name}.test: {pattern}: no such cell"
                    f"{did_you_mean(pattern, listed)}; a claim that the study has no cells for is "
                    "{kind: untested, reason: …}"
                )


def check_cells(claims: dict[str, Claim], names: Iterable[str], source: str) -> None:
    """StudyError where a claim of the file `source` names a cell that is not among `names`."""
    if faults := [f"{source}: {line}" for line in unknown_cells(claims, names)]:
        raise StudyError("\n".join(faults))
