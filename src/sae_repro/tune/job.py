"""The job of one trial: its cell trained into the store that the stages use, and measured.

Trainer and keys are those of the stage train, so a trial that is adopted as a cell is trained
already.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.progress import measured
from sae_repro.train.job import CellJob
from sae_repro.tune.measuring import Measuring

if TYPE_CHECKING:
    from sae_repro.tune.pruning import Rungs


@dataclass(frozen=True)
class TrialJob:
    """Everything one trial needs; pickles to a worker."""

    cell: CellJob
    measuring: Measuring
    rungs: "Rungs | None"
    """Rules for stopping it early; None: it always ends."""
    shown: tuple[str, ...]
    """Metrics in its line, besides those of every SAE's."""

    @property
    def name(self) -> str:
        """The trial's name for people."""
        return self.cell.name

    def reads(self) -> list[Path]:
        """What it needs of the study's folder, if it is there."""
        return self.cell.reads()

    def writes(self) -> list[Path]:
        """What it leaves in the study's folder."""
        return [
            *self.cell.writes(),
            self.cell.store / self.measuring.key(self.cell),
            *([] if self.rungs is None else [self.rungs.path(self.cell)]),
        ]

    def __call__(self, progress: Callable[[int], None]) -> str:
        """Train and measure, each unless it is done by now; a stopped trial is not measured.

        Returns a line on the trial.
        """
        if self.rungs is None:
            self.cell(progress)
        else:
            self.rungs.train(self.cell, progress)
        outcome = self.outcome()
        result = outcome.reason or measured(outcome.measured["metrics"], *self.shown)
        return f"tune: {self.cell.name}: {result}"

    def outcome(self) -> "Outcome":
        """The result of the trial, once it was called."""
        looks = None
        if self.rungs is not None:
            looks = self.rungs.replay(self.cell)
            if looks.pruned:
                step, fvu = list(looks.reports.items())[-1]
                return Outcome(
                    "pruned", {}, looks.reports, looks.notes,
                    f"stopped at step {step}: FVU {fvu:.4g}, other trials were better at that step",
                )  # fmt: skip
        found = self.measuring.measure(self.cell)
        return Outcome(
            "ok" if found["status"] == "ok" else "failed",
            found,
            looks.reports if looks else {},
            looks.notes if looks else {},
            found.get("reason", ""),
        )


@dataclass(frozen=True)
class Outcome:
    """The result of a trial."""

    status: str
    """ok, failed or pruned."""
    measured: dict[str, Any]
    """Its metrics and counts, and their key in the store as `evaluation`; empty where pruned."""
    reports: dict[int, float]
    """FVU on tuning documents by step, where the study has a pruner."""
    notes: dict[str, Any]
    """The pruner's own attributes of the trial."""
    reason: str
    """Reason for missing metrics; empty where there are metrics."""
