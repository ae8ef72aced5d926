"""After the trials of several studies: one setting per recipe for all target L0s, over seeds.

Candidates are the recipe as it is and the best trial of each of its studies. Each is trained at
every target L0, with the trials' seed; the chosen one breaks the constraints at the fewest L0s, and
has among those the lowest FVU: the mean over the L0s of log FVU there. Then the recipe as it is and
the chosen one are trained with further seeds, on which nothing was chosen, and compared.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from statistics import fmean, stdev
from typing import Any

from sae_repro.files import canonical_json
from sae_repro.params import Tune
from sae_repro.params.tune import AT_L0
from sae_repro.tune.job import Outcome
from sae_repro.tune.records import TrialRecord
from sae_repro.tune.space import Part, at_l0, parts_of, searched_keys

Choices = Mapping[str, Any]
Measure = Callable[[Mapping[str, Choices]], Mapping[str, Outcome]]
"""Trains and measures cells by name."""

TRIALS_SEED = 0
BEST_FEW = 3
"""Trials of a study whose spread is how well it is tuned."""


@dataclass(frozen=True)
class Tuned:
    """What tuning made of a recipe at one target L0. FVU is that read at the target."""

    part: Part
    trials: int
    feasible: int
    """Of `trials`, those that ended and hold all constraints."""
    training_tokens: int
    """Of each trial; 0 where none ended."""
    tuning_tokens: int
    best: int | None
    """Number of the study's best trial."""
    best_fvu: float | None
    spread: float | None
    """Standard deviation of log FVU over the study's best three trials."""
    default: tuple[float | None, ...]
    """FVU of the recipe as it is, by seed; None where a training failed or misses the target."""
    tuned: tuple[float | None, ...]
    """FVU of the recipe's chosen setting, by seed."""

    @property
    def margin(self) -> float | None:
        """Uncertainty of log FVU when tuned: the spread of the trials and of seeds together."""
        seeds = spread_of(self.tuned)
        if self.spread is None or seeds is None:
            return None
        return float((self.spread**2 + seeds**2) ** 0.5)


@dataclass(frozen=True)
class Setting:
    """The chosen setting of a recipe, for all its target L0s."""

    recipe: str
    trial: int
    """The trial it is from; its recipe's first, where it is the recipe as it is."""
    choices: dict[str, Any]
    """Values of all that is searched, by the cell's keys."""
    gains: tuple[float, ...]
    """log(FVU as it is / FVU when tuned), mean over the L0s, by seed."""
    improved: bool
    """Whether the seeds on which nothing was chosen all say so."""


@dataclass(frozen=True)
class Confirmed:
    """The result of several studies, by recipe and target L0."""

    parts: tuple[Tuned, ...] = ()
    settings: tuple[Setting, ...] = ()


def mean_of(fvus: Sequence[float | None]) -> float | None:
    """Geometric mean; None where one is missing."""
    known = [log(fvu) for fvu in fvus if fvu]
    return exp(fmean(known)) if known and len(known) == len(fvus) else None


def spread_of(fvus: Sequence[float | None]) -> float | None:
    """Standard deviation of log FVU; None where one is missing."""
    known = [log(fvu) for fvu in fvus if fvu]
    return stdev(known) if len(known) == len(fvus) > 1 else None


def confirm(tune: Tune, records: Sequence[TrialRecord], measure: Measure) -> Confirmed:
    """Choose a setting per recipe and compare it with the recipe as it is; nothing for one search.

    A function of the trials alone: which cells `measure` has to train does not matter.
    """
    parts = parts_of(tune)
    if tune.studies is None:
        return Confirmed()
    seeds = (TRIALS_SEED, *tune.studies.seeds)
    by_part = {part: list(records[place :: len(parts)]) for place, part in enumerate(parts)}
    candidates = {recipe: _candidates(recipe, by_part) for recipe in tune.recipes}
    found = measure(
        {
            _name(part, trial.number, seeds[0]): _cell(trial, part, seeds[0])
            for part in parts
            for trial in candidates[part.recipe]
        }
    )

    def fvu(trial: TrialRecord, part: Part, seed: int) -> float | None:
        outcome = found[_name(part, trial.number, seed)]
        return _held(tune, outcome)

    chosen = {
        recipe: min(
            trials,
            # of equals the recipe as it is, which is first
            key=lambda trial: _cost([fvu(trial, p, seeds[0]) for p in _of(parts, recipe)]),
        )
        for recipe, trials in candidates.items()
    }
    found = dict(found) | dict(
        measure(
            {
                _name(part, trial.number, seed): _cell(trial, part, seed)
                for part in parts
                for trial in (candidates[part.recipe][0], chosen[part.recipe])
                for seed in seeds[1:]
            }
        )
    )
    tuned = tuple(
        _tuned(
            part, by_part[part],
            tuple(fvu(candidates[part.recipe][0], part, seed) for seed in seeds),
            tuple(fvu(chosen[part.recipe], part, seed) for seed in seeds),
        )
        for part in parts
    )  # fmt: skip
    return Confirmed(
        parts=tuned,
        settings=tuple(
            _setting(tune, recipe, chosen[recipe], [t for t in tuned if t.part.recipe == recipe])
            for recipe in tune.recipes
        ),
    )


def best_in(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials of one study that ended and hold all constraints, the best first."""
    held = [t for t in trials if t.status == "ok" and t.feasible]
    return sorted(held, key=lambda t: (t.losses, t.number))


def _of(parts: Sequence[Part], recipe: str) -> list[Part]:
    return [part for part in parts if part.recipe == recipe]


def _candidates(recipe: str, by_part: Mapping[Part, Sequence[TrialRecord]]) -> list[TrialRecord]:
    """The recipe as it is, then the best of each of its studies; settings that are alike once."""
    studies = [trials for part, trials in by_part.items() if part.recipe == recipe]
    several = [studies[0][0], *(t for trials in studies for t in best_in(trials)[:1])]
    # reversed: of those that are alike the first stays
    once = {canonical_json(at_l0(t.choices, 1.0)): t for t in reversed(several)}
    return sorted(once.values(), key=several.index)


def _cell(trial: TrialRecord, part: Part, seed: int) -> dict[str, Any]:
    return {**at_l0(trial.choices, part.target_l0), "seed": seed}


def _name(part: Part, trial: int, seed: int) -> str:
    return f"{part}, settings of trial {trial}, seed {seed}"


def _held(tune: Tune, outcome: Outcome) -> float | None:
    """FVU at the target L0; None for a cell that failed or breaks a constraint."""
    metrics = outcome.measured.get("metrics", {})
    if outcome.status != "ok" or metrics.get(AT_L0) is None:
        return None
    if any(
        metrics[name] is None or metrics[name] > most for name, most in tune.constraints.items()
    ):
        return None
    return float(metrics[AT_L0])


def _cost(fvus: Sequence[float | None]) -> tuple[int, float]:
    held = [log(fvu) for fvu in fvus if fvu]
    return len(fvus) - len(held), fmean(held) if held else inf


def _tuned(
    part: Part,
    trials: Sequence[TrialRecord],
    default: tuple[float | None, ...],
    tuned: tuple[float | None, ...],
) -> Tuned:
    best = best_in(trials)
    few = [t.losses[0] for t in best[:BEST_FEW]]
    counts = best[0].metrics if best else {}
    return Tuned(
        part=part,
        trials=len(trials),
        feasible=len(best),
        training_tokens=int(counts.get("training_tokens", 0)),
        tuning_tokens=int(counts.get("tokens", 0)),
        best=best[0].number if best else None,
        best_fvu=best[0].losses[0] if best else None,
        spread=spread_of(few) if len(few) == BEST_FEW else None,
        default=default,
        tuned=tuned,
    )


def _setting(tune: Tune, recipe: str, trial: TrialRecord, parts: Sequence[Tuned]) -> Setting:
    known = [part for part in parts if all(part.default) and all(part.tuned)]
    gains: tuple[float, ...] = ()
    if known:
        gains = tuple(
            fmean(log(part.default[i] or 1) - log(part.tuned[i] or 1) for part in known)
            for i in range(len(parts[0].tuned))
        )
    rescued = sum(not all(part.default) and all(part.tuned) for part in parts)
    lost = sum(all(part.default) and not all(part.tuned) for part in parts)
    better = bool(gains) and all(gain > 0 for gain in gains[1:])
    return Setting(
        recipe=recipe,
        trial=trial.number,
        choices={key: trial.choices[key] for key in searched_keys(tune, recipe)},
        gains=gains,
        # L0s that only one of the two holds count before FVU
        improved=rescued > lost or (rescued == lost and better),
    )
