"""Results of all cells, read from disk: choices, held-out metrics, curves and latents."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_repro.files import read_json
from sae_repro.numerics.intervals import Interval
from sae_repro.params import Cell
from sae_repro.params.architecture import architecture_of
from sae_repro.params.cell_labels import is_control, sparsity
from sae_repro.params.operations import step_operations, trained_parameters
from sae_repro.remarks import remarks_on


@dataclass(frozen=True)
class Result:
    """One cell: its choices, and what `train` and `evaluate` left of it."""

    name: str
    cell: Cell
    measured: Mapping[str, Any]
    trained: Path
    evaluated: Path

    @cached_property
    def members(self) -> tuple["Result", ...]:
        """One result per SAE: itself, or each of its seeds, named cell/seed-<n>."""
        if self.cell.seeds is None:
            return (self,)
        return tuple(
            Result(
                name=f"{self.name}/{place}",
                cell=cell,
                measured=read_json(self.evaluated / place / "metrics.json"),
                trained=self.trained / place,
                evaluated=self.evaluated / place,
            )
            for place, cell in self.cell.members().items()
        )

    @property
    def saes(self) -> tuple["Result", ...]:
        """Those of its members that trained to their end."""
        return tuple(member for member in self.members if member.ok)

    @property
    def ok(self) -> bool:
        """Whether it trained to its end, or one of its seeds did."""
        return bool(self.measured["status"] == "ok")

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """Held-out metrics by name, means over its seeds; none for a failed cell."""
        metrics: Mapping[str, float | None] = self.measured["metrics"]
        return metrics

    def by_seed(self, metric: str) -> list[float]:
        """The metric of each of its SAEs that has it."""
        ones = self.measured.get("seeds", {".": self.measured}).values()
        values = [one["metrics"].get(metric) for one in ones if one["status"] == "ok"]
        return [value for value in values if value is not None]

    def mean_log(self, metric: str) -> float:
        """Mean of the metric's logarithm over its SAEs, of one that all of them have above 0."""
        return float(np.mean(np.log(self.by_seed(metric))))

    def interval(self, metric: str) -> Interval | None:
        """The 95 % interval of a metric; None where it has none."""
        bounds: Interval | None = self.measured["intervals"].get(metric)
        return bounds

    @property
    def sd(self) -> Mapping[str, float | None]:
        """Standard deviations of its metrics over its seeds; none for one SAE."""
        sd: Mapping[str, float | None] = self.measured.get("sd", {})
        return sd

    @cached_property
    def remarks(self) -> list[str]:
        """A missed target L0, no reconstruction, what was asked for and never happened."""
        return remarks_on(self.cell, self.measured)

    @property
    def hook(self) -> str:
        """The hook it reads, and of a transcoder the one it predicts: what is measured alike."""
        hook, target = str(self.measured["hook"]), self.cell.target_hook
        return hook if target is None else f"{hook} → {target}"

    @property
    def architecture(self) -> str:
        """Its name in tables: activation, penalty, prefixes, revival, without the sparsity."""
        imported = self.cell.import_ is not None
        return architecture_of(
            self.cell, activation=self.choices["activation"] if imported else None
        )

    @property
    def negative(self) -> bool:
        """Whether it is a negative control: in the tables of cells, but no point of a frontier."""
        return is_control(self.cell)

    @property
    def choices(self) -> Mapping[str, Any]:
        """Its choices as they were trained (or imported)."""
        choices: Mapping[str, Any] = self.measured["choices"]
        return choices

    @property
    def size(self) -> tuple[int, int] | None:
        """(trained parameters, operations of a training step); None where nothing was trained."""
        if self.cell.kind != "trained":
            return None
        d_in, batch_size = self.measured["d_in"], self.training["train"]["batch_size"]
        d_out = self.training.get("d_out")
        operations = step_operations(self.cell, d_in, batch_size, d_out)
        return trained_parameters(self.cell, d_in, d_out), operations

    @property
    def tokens(self) -> int | None:
        """Training tokens that its choices ask for; None for those of `train`."""
        return self.choices.get("tokens")

    @cached_property
    def training(self) -> Mapping[str, Any]:
        """train.json of its first SAE; empty where nothing was trained."""
        if self.cell.kind != "trained":
            return {}
        first = next(iter(self.cell.members()))
        training: Mapping[str, Any] = read_json(self.trained / first / "train.json")
        return training

    @property
    def trained_tokens(self) -> int | None:
        """Tokens on which each of its SAEs was trained; None where nothing was trained."""
        return self.training.get("tokens")

    @property
    def training_operations(self) -> int | None:
        """Operations of its training, of one SAE; None where nothing was trained."""
        return self.size[1] * self.training["steps"] if self.size else None

    @property
    def expansion(self) -> float:
        """K / D."""
        if self.cell.import_ is None and not self.cell.is_basis:
            return self.cell.expansion
        return float(self.measured["d_sae"] / self.measured["d_in"])

    @property
    def sparsity(self) -> str:
        """The setting of its sparsity: `k = 16` or `λ = 0.01`."""
        return sparsity(self.cell)

    @cached_property
    def documents(self) -> pd.DataFrame:
        """One SAE's sums per validation document: tokens, l0_sum, squared_error, total_variance."""
        return pd.read_parquet(self.evaluated / "documents.parquet")

    @cached_property
    def latents(self) -> pd.DataFrame:
        """One SAE's latents, a row each: density, activations."""
        return pd.read_parquet(self.evaluated / "latents.parquet")

    @cached_property
    def concepts(self) -> pd.DataFrame:
        """One SAE's row per concept, where structure was measured."""
        return pd.read_parquet(self.evaluated / "concepts.parquet")

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """One SAE's row per parent, child and notion of silence, where structure was measured."""
        return pd.read_parquet(self.evaluated / "pairs.parquet")

    @cached_property
    def monosemantic(self) -> pd.DataFrame:
        """One SAE's latents against the concept bank, where monosemanticity was measured."""
        return pd.read_parquet(self.evaluated / "monosemantic.parquet")

    @cached_property
    def steering(self) -> pd.DataFrame | None:
        """One SAE's row per concept and condition, where steering was measured."""
        path = self.evaluated / "steering.parquet"
        return pd.read_parquet(path) if path.is_file() else None

    @cached_property
    def curve(self) -> pd.DataFrame:
        """One SAE's training metrics by step."""
        path = self.trained / "metrics.jsonl"
        return pd.read_json(path, lines=True) if path.stat().st_size else pd.DataFrame()


def collect(cells: Mapping[str, Cell], artifacts: Path) -> list[Result]:
    """The results of the cells that params.yaml names, in its order."""
    return [
        Result(
            name=name,
            cell=cell,
            measured=read_json(artifacts / "evaluate" / name / "metrics.json"),
            trained=artifacts / "train" / name,
            evaluated=artifacts / "evaluate" / name,
        )
        for name, cell in cells.items()
    ]
