"""The SAEs whose latents the explorer shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from sae_repro.files import read_json
from sae_repro.params import GIVEN, Cell, Report
from sae_repro.params.architecture import architecture_of
from sae_repro.params.cell_labels import is_control


@dataclass(frozen=True)
class ShownSae:
    """An SAE of a cell, and where its results lie."""

    cell: str
    place: str
    """`seed-<n>`, or `.` in a cell of one SAE."""
    choices: Cell
    artifacts: Path

    @property
    def name(self) -> str:
        """As in tables: cell, or cell/seed-<n>."""
        return self.cell if self.place == "." else f"{self.cell}/{self.place}"

    @property
    def id(self) -> str:
        """A name for folders and links: no cell's name has a point in it."""
        return self.name.replace("/", ".")

    @property
    def seed(self) -> int | None:
        """Its seed in a cell of several."""
        return None if self.place == "." else int(self.place.removeprefix("seed-"))

    @property
    def trained(self) -> Path:
        """Its weights."""
        return self.artifacts / "train" / self.cell / self.place

    @property
    def evaluated(self) -> Path:
        """Its measurements."""
        return self.artifacts / "evaluate" / self.cell / self.place

    @cached_property
    def measured(self) -> Mapping[str, Any]:
        """Its metrics.json."""
        measured: Mapping[str, Any] = read_json(self.evaluated / "metrics.json")
        return measured

    @property
    def hook(self) -> str:
        """The hook it reads."""
        return str(self.measured["hook"])

    @property
    def unit(self) -> str:
        """What it reads one of at a time: tokens of a language model, or rows that were given."""
        return "rows" if self.hook == GIVEN else "tokens"

    @property
    def decodes_at(self) -> str:
        """The hook at which its atoms are directions: a transcoder's target."""
        return self.choices.target_hook or self.hook

    @property
    def architecture(self) -> str:
        """Its name in tables."""
        imported = self.choices.import_ is not None
        return architecture_of(
            self.choices, activation=self.measured["choices"]["activation"] if imported else None
        )

    @cached_property
    def judged(self) -> Mapping[str, Any]:
        """What the judge wrote of it; empty where it was not asked."""
        path = self.artifacts / "judge" / f"{self.name}.json"
        return read_json(path) if path.is_file() else {}

    @cached_property
    def latents(self) -> pd.DataFrame:
        """latents.parquet."""
        return pd.read_parquet(self.evaluated / "latents.parquet")

    @cached_property
    def contexts(self) -> pd.DataFrame:
        """contexts.parquet."""
        return pd.read_parquet(self.evaluated / "contexts.parquet")

    def table(self, name: str) -> pd.DataFrame | None:
        """`name`.parquet of a measure that was chosen for it; None of one that was not."""
        path = self.evaluated / f"{name}.parquet"
        return pd.read_parquet(path) if path.is_file() else None


def shown_saes(
    cells: Mapping[str, Cell], settings: Report, targets: Sequence[float], artifacts: Path
) -> list[ShownSae]:
    """The SAEs of `settings.explorer` that trained to their end, in the order of `cells`.

    By default those of trained cells, controls apart, whose target L0 is the middle of `targets`
    (the upper of two); of none such, those of the first trained cell.
    """
    if settings.explorer is not None:
        patterns = settings.explorer
        chosen = [name for name in cells if any(fnmatchcase(name, p) for p in patterns)]
    else:
        middle = sorted(targets)[len(targets) // 2] if targets else None
        trained = [n for n, c in cells.items() if c.kind == "trained" and not is_control(c)]
        at_middle = [n for n in trained if cells[n].l0_target == middle]
        chosen = (at_middle if middle is not None else []) or trained[:1]
    return [sae for name in chosen for sae in _members(name, cells[name], settings, artifacts)]


def _members(name: str, cell: Cell, settings: Report, artifacts: Path) -> list[ShownSae]:
    saes = (ShownSae(name, place, c, artifacts) for place, c in cell.members().items())
    return [*islice((sae for sae in saes if sae.measured["status"] == "ok"), settings.seeds)]
