"""The job of one trial: its cell trained and evaluated into the store that the stages use.

Trainer, evaluation and keys are those of the stages, so a trial that is adopted as a cell is there
already.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sae_repro.evaluate.inputs import Evaluation
from sae_repro.evaluate.job import EvaluateJob, job_of
from sae_repro.files import read_json
from sae_repro.progress import measured
from sae_repro.train.job import CellJob

if TYPE_CHECKING:
    from sae_repro.tune.pruning import Rungs


@dataclass(frozen=True)
class TrialJob:
    """Everything one trial needs; pickles to a worker."""

    cell: CellJob
    evaluation: Evaluation
    rungs: "Rungs | None"
    """Rules for stopping it early; None: it always ends."""
    shown: tuple[str, ...]
    """Metrics in its line, besides those of every evaluation's."""

    @property
    def name(self) -> str:
        """The trial's name for people."""
        return self.cell.name

    def __call__(self, progress: Callable[[int], None]) -> str:
        """Train and evaluate, each unless it is done by now; a stopped trial is not evaluated.

        Returns a line on the trial.
        """
        if self.rungs is None:
            self.cell(progress)
            pruned = False
        else:
            pruned = self.rungs.train(self.cell, progress).pruned
        if not pruned:
            self._evaluation()(lambda done: None)
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
        evaluated = self._evaluation()
        summary = read_json(evaluated.study.store / evaluated.key / "metrics.json")
        return Outcome(
            "ok" if summary["status"] == "ok" else "failed",
            {**summary, "evaluation": evaluated.key},
            looks.reports if looks else {},
            looks.notes if looks else {},
            summary.get("reason", ""),
        )

    def _evaluation(self) -> EvaluateJob:
        return job_of(self.evaluation, self.cell.store / self.cell.key, self.cell.name)


@dataclass(frozen=True)
class Outcome:
    """The result of a trial."""

    status: str
    """ok, failed or pruned."""
    measured: dict[str, Any]
    """Its metrics.json, and its key in the store as `evaluation`; empty where pruned."""
    reports: dict[int, float]
    """Held-out FVU by step, where the study has a pruner."""
    notes: dict[str, Any]
    """The pruner's own attributes of the trial."""
    reason: str
    """Reason for missing metrics; empty where there are metrics."""
