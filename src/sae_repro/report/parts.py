"""The parts of the page: tables whose numbers say where they come from, prose, figures."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from sae_repro.report.origins import Origin
from sae_repro.report.shown import ShownSae

ABSENT = "–"
OPEN_ROWS = 16
"""A table of more rows is folded."""


@dataclass(frozen=True)
class Value:
    """A cell of a table."""

    text: str
    interval: str = ""
    """Its 95 % interval, for reading."""
    full: str = ""
    """A number's digits, all of them, and its interval's; empty in a cell of words."""
    source: str = ""
    """The file that a number is from, seen from the study's folder."""
    cells: Sequence[str] = ()
    """The cells that it was measured on."""
    strong: bool = False
    href: str = ""


@dataclass(frozen=True)
class Table:
    """A table, or nothing where it has no rows."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Value]]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column is of numbers, to be aligned as such."""
        return [any(row[i].full for row in self.rows) for i in range(len(self.heads))]

    @property
    def folded(self) -> bool:
        """Whether it is too long to stand open."""
        return len(self.rows) > OPEN_ROWS


@dataclass(frozen=True)
class Claim:
    """A claim of others beside what was measured."""

    name: str
    verdict: str
    value: Value
    n: str
    expected: str
    quote: str
    source: str
    facts: Sequence[tuple[str, str]]
    """(name, text) of what decided it, folded away."""
    figure: str
    """The name of the drawing that shows what it is about; empty if none does."""


@dataclass(frozen=True)
class Branch:
    """A parent concept, with its children."""

    name: str
    facts: str
    children: Sequence[tuple[str, Value, Value, str]] = ()
    """(name, hole rate, absorption, of how many tokens)."""


@dataclass(frozen=True)
class Tree:
    """Parents and children of one SAE."""

    caption: str
    branches: Sequence[Branch]


@dataclass(frozen=True)
class Figure:
    """A drawing of the study, embedded, with its files beside the page."""

    name: str
    uri: str
    files: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own."""

    id: str
    title: str
    lead: Sequence["Prose"] = ()
    """Paragraphs that are read first."""
    method: Sequence["Prose"] = ()
    """How it was measured, folded away."""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    claims: Sequence[Claim] = ()
    trees: Sequence[Tree] = ()
    latents: Sequence[Any] = ()
    points: Sequence["Prose"] = ()
    """The items of a list."""

    @property
    def empty(self) -> bool:
        """Whether the study has nothing of it."""
        shown = (self.lead, self.points, self.figures, self.tables, self.claims, self.trees)
        return not (any(shown) or self.latents)


@dataclass(frozen=True)
class Run:
    """A stretch of prose."""

    text: str
    strong: bool = False
    href: str = ""


Prose = list[Run]
_RUN = re.compile(
    r"\*\*(?P<strong>.+?)\*\*|\[(?P<label>[^\]]+)\]\((?P<href>[\w./-]+)\)|`(?P<code>[^`]+)`"
)


def prose(text: str, folder: str = "tables/") -> Prose:
    """Runs of a paragraph of a caption: **strong**, [a link](to.md), `code`."""
    runs, end = [], 0
    for found in _RUN.finditer(text):
        runs.append(Run(text[end : found.start()]))
        href = f"{folder}{found['href']}" if found["href"] else ""
        runs.append(
            Run(found["strong"] or found["label"] or found["code"], bool(found["strong"]), href)
        )
        end = found.end()
    return [run for run in [*runs, Run(text[end:])] if run.text]


def caption(path: Path) -> list[Prose]:
    """The paragraphs between the title and the first table, list or heading of a written table."""
    if not path.is_file():
        return []
    paragraphs = []
    for block in path.read_text(encoding="utf-8").split("\n\n")[1:]:
        if block.lstrip().startswith(("|", "#", "- ", "```")):
            break
        paragraphs.append(prose(" ".join(block.split())))
    return paragraphs


def items(path: Path) -> list[Prose]:
    """The items of the list in a written table."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [prose(line.removeprefix("- ")) for line in lines if line.startswith("- ")]


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """reports/tables/`name`.csv; empty where the study has none."""
    path = folder / f"{name}.csv"
    if not path.is_file() or path.stat().st_size <= 1:  # a table of no rows has no columns either
        return pd.DataFrame()
    return pd.read_csv(path)


def printed(value: object) -> str:
    """A value for reading: numbers to three significant digits, an absent one as a dash."""
    if value is None or value != value:
        return ABSENT
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


@dataclass(frozen=True)
class Maker:
    """Maker of the page's tables out of reports/tables."""

    tables: Path
    origins: Mapping[str, Origin] = field(default_factory=dict)

    def table(
        self,
        name: str,
        text: str,
        heads: Mapping[str, str],
        frame: pd.DataFrame | None = None,
        cells: Mapping[Any, Sequence[str]] | None = None,
    ) -> list[Table]:
        """`name`.csv, or the rows of it in `frame`, in the columns of `heads`, by their headings.

        A column with `_low` and `_high` beside it is printed with that interval, and strong where
        `_best` is true. `cells`: by row, the cells behind it, where no column `cell` says so.
        """
        frame = read_table(self.tables, name) if frame is None else frame
        present = [c for c in heads if c in frame and frame[c].notna().any()]
        if frame.empty or not present:
            return []
        rows = []
        for place, row in zip(frame.index, frame.to_dict("records"), strict=True):
            behind = cells[place] if cells else [row["cell"]] if "cell" in row else []
            rows.append([self._value(name, column, row, behind) for column in present])
        return [Table(text, [heads[column] for column in present], rows)]

    def _value(self, name: str, column: str, row: Mapping[Any, Any], cells: Sequence[str]) -> Value:
        value = row[column]
        if not isinstance(value, int | float) or value != value:
            return Value(printed(value))
        low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
        strong = str(row.get(f"{column}_best")) == "True"
        return self.number(name, value, (low, high), cells, strong=strong)

    def number(
        self,
        name: str,
        value: float,
        interval: tuple[Any, Any] = (None, None),
        cells: Iterable[str] = (),
        *,
        strong: bool = False,
    ) -> Value:
        """A number of `name`.csv with its interval, if it has one, measured on `cells`."""
        low, high = interval
        bounded = low is not None and high is not None and low == low
        known = tuple(str(cell) for cell in cells if str(cell) in self.origins)
        return Value(
            printed(value),
            f"[{printed(low)}, {printed(high)}]" if bounded else "",
            f"{value} [{low}, {high}]" if bounded else str(value),
            f"reports/tables/{name}.csv",
            known,
            strong,
        )


_DECIMALS = re.compile(r"(\.\d{2})\d+")


def figure(folder: Path, name: str) -> list[Figure]:
    """The drawing `name` of reports/figures, its outlines to 1/100 point; none if it is missing."""
    path = folder / f"{name}.svg"
    if not path.is_file():
        return []
    svg = " ".join(path.read_text(encoding="utf-8").split())
    svg = re.sub(r' d="[^"]*"', lambda found: _DECIMALS.sub(r"\1", found[0]), svg)
    uri = "data:image/svg+xml," + quote(svg, safe=" ,.:;=/-+()'!*~@$?[]")
    files = sorted(p.name for p in folder.glob(f"{name}.*"))
    return [Figure(name, uri, files)]


def sae_number(sae: ShownSae, value: float, table: str) -> Value:
    """A number of an SAE's own `table`.parquet."""
    source = f"artifacts/evaluate/{sae.name}/{table}.parquet"
    return Value(printed(value), full=str(value), source=source, cells=(sae.cell,))
