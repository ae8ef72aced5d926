"""Trials as jobs for workers; the process that hands them over loads no torch."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sae_repro.control.planned import Trial

AT_MOST = 5  # trials one after another, so that many cores find work, too


@dataclass(frozen=True)
class WorldJob:
    """Trials of one world, which is made once for them, and all that they need; pickles."""

    trials: tuple[Trial, ...]
    study_seed: int
    corpus: Path
    outs: tuple[Path, ...]
    """Where each trial's outcome goes; its latents go beside it, as .npz."""

    @property
    def name(self) -> str:
        """The trials' name for people."""
        first = self.trials[0]
        recipes = ", ".join(trial.recipe for trial in self.trials)
        return f"{first.name}, seed {first.seed}, {recipes}"

    @property
    def steps(self) -> int:
        """Training steps of all trials."""
        return sum(trial.steps for trial in self.trials)

    def reads(self) -> list[Path]:
        """What it needs of the study's folder, if it is there."""
        return [self.corpus]

    def writes(self) -> list[Path]:
        """What it leaves in the study's folder."""
        return [path for out in self.outs for path in (out, out.with_suffix(".npz"))]

    def __call__(self, progress: Callable[[int], None]) -> str:
        """Train, measure, and write each outcome to its place."""
        from sae_repro.control.trial import carry_out

        failed = []
        outcomes = carry_out(self.trials, self.study_seed, self.corpus, progress)
        for folder in {out.parent for out in self.outs}:
            folder.mkdir(parents=True, exist_ok=True)  # another machine's folder has none yet
        for trial, out, (outcome, learnt) in zip(self.trials, self.outs, outcomes, strict=True):
            # read once, by the stage that waits for it: a power loss takes both
            out.write_text(json.dumps(outcome, allow_nan=False), encoding="utf-8")
            if learnt is not None:
                learnt.save(out.with_suffix(".npz"))
            if outcome["status"] != "ok":
                failed.append(trial.recipe)
        return f"control: {self.name}: {'failed: ' + ', '.join(failed) if failed else 'ok'}"


@dataclass(frozen=True)
class StabilityJob:
    """The recipes of one world whose SAEs of several seeds are compared; pickles."""

    world: str
    recipes: Mapping[str, Sequence[Path]]
    """Where the latents of a recipe's SAEs are, seed by seed."""
    out: Path

    @property
    def name(self) -> str:
        """For people."""
        return f"stability, {self.world}"

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Write a row per recipe to its place."""
        from sae_repro.control.stability import Learnt, prediction

        rows = {
            recipe: prediction([Learnt.load(path) for path in paths])
            for recipe, paths in self.recipes.items()
        }
        self.out.write_text(json.dumps(rows, allow_nan=False), encoding="utf-8")


def jobs(trials: Sequence[Trial], study_seed: int, corpus: Path, folder: Path) -> list[WorldJob]:
    """Jobs for all `trials`, the longest first; the outcome of trial i goes to `folder`/i.json."""
    by_world: dict[tuple[str, int, int], list[int]] = {}
    for i, trial in enumerate(trials):
        by_world.setdefault((trial.name, trial.seed, trial.rows), []).append(i)
    planned = [
        WorldJob(tuple(trials[i] for i in part), study_seed, corpus,
                 tuple(folder / f"{i}.json" for i in part))
        for members in by_world.values()
        for part in (members[k : k + AT_MOST] for k in range(0, len(members), AT_MOST))
    ]  # fmt: skip
    return sorted(planned, key=lambda job: -sum(trial.cost for trial in job.trials))
