"""A trial as a job for a worker; the process that hands it over loads no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sae_repro.control.recipes import Trial
from sae_repro.files import write_json


@dataclass(frozen=True)
class TrialJob:
    """All that a trial needs; pickles to a worker."""

    trial: Trial
    study_seed: int
    corpus: Path
    out: Path

    @property
    def name(self) -> str:
        """The trial's name for people."""
        return f"{self.trial.name}, {self.trial.recipe}, seed {self.trial.seed}"

    def __call__(self, progress: Callable[[int], None]) -> str:
        """Train, measure, and write the outcome to `out`."""
        from sae_repro.control.trial import carry_out

        outcome = carry_out(self.trial, self.study_seed, self.corpus, progress)
        write_json(self.out, outcome)
        return f"control: {self.name}: {outcome['status']}"
