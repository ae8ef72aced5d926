"""Proposals of the next batch: a function of the space, the seed and the batches before it.

A batch is proposed by an in-memory study that holds the earlier batches and nothing else, in the
order of its numbers, each number with a sampler of its own seed. So neither the order in which
trials end, nor how many of a batch had ended before an interruption, reaches a sampler.

With `studies`, each proposes its own trials from its own earlier ones. The n-th trials of all have
one seed: as long as nothing is learnt, what recipes have in common is drawn alike for all of them.
The first is the recipe as it is.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial

from sae_repro.numerics.random import generator
from sae_repro.params import Tune
from sae_repro.tune.space import Part, at_part, default_params, parts_of, suggest, within

STARTUP = 6  # finished trials before tpe and gp learn from them


@dataclass(frozen=True)
class Proposal:
    """A trial that has not run yet: its parameters, and the cell they make."""

    number: int
    choices: dict[str, Any]
    params: dict[str, Any]
    distributions: dict[str, Any]
    notes: dict[str, Any]
    """The sampler's own attributes, e.g. nsga2's generation."""


@contextmanager
def quiet() -> Iterator[None]:
    """A block without Optuna's log lines and warnings of experimental features."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


def directions(tune: Tune) -> list[Literal["minimize", "maximize"]]:
    """The direction of each value for Optuna."""
    return ["minimize"] if tune.weights else list(tune.objectives.values())


def propose_batch(
    tune: Tune, name: str, earlier: Sequence[FrozenTrial], size: int
) -> list[Proposal]:
    """The trials `len(earlier)` … `len(earlier) + size − 1` of the study `name`.

    `earlier` are the trials of all earlier batches, by number.
    """
    parts = parts_of(tune)
    with quiet():
        if not parts:
            study = study_of(tune, name, earlier)
            return [_propose(tune, study, len(earlier) + i) for i in range(size)]
        proposals = [
            proposal
            for place, part in enumerate(parts)
            for proposal in _propose_part(
                tune, name, part, place, earlier[place :: len(parts)], size // len(parts)
            )
        ]
    return sorted(proposals, key=lambda proposal: proposal.number)


def _propose_part(
    tune: Tune, name: str, part: Part, place: int, earlier: Sequence[FrozenTrial], size: int
) -> list[Proposal]:
    """The next `size` trials of one study, the `place`-th of all, after its `earlier` ones."""
    alone, count = within(tune, part), len(parts_of(tune))
    study = study_of(alone, name, [_inside(part, trial) for trial in earlier])
    if not earlier:
        study.enqueue_trial(default_params(alone, part.recipe))
    found = [_propose(alone, study, len(earlier) + i) for i in range(size)]
    return [
        replace(
            proposal,
            number=proposal.number * count + place,
            params=part.params | proposal.params,
            distributions=at_part(tune, part, proposal.distributions),
        )
        for proposal in found
    ]


def _inside(part: Part, trial: FrozenTrial) -> FrozenTrial:
    """A trial as its own study knows it: without what names this study."""
    trial = deepcopy(trial)
    trial.distributions = {k: d for k, d in trial.distributions.items() if k not in part.params}
    trial.params = {k: v for k, v in trial.params.items() if k not in part.params}
    return trial


def study_of(
    tune: Tune,
    name: str,
    earlier: Sequence[FrozenTrial],
    pruner: optuna.pruners.BasePruner | None = None,
) -> optuna.Study:
    """An in-memory study that holds `earlier` under their numbers."""
    study = optuna.create_study(
        study_name=name, directions=directions(tune), pruner=pruner or optuna.pruners.NopPruner()
    )
    study.add_trials(earlier)
    return study


def _propose(tune: Tune, study: optuna.Study, number: int) -> Proposal:
    seed = int(generator(tune.seed, "tune", number).integers(2**31))
    study.sampler = _sampler(tune, seed)
    trial = study.ask()
    choices = suggest(tune, trial)
    frozen = study.get_trials(deepcopy=False)[number]
    return Proposal(
        number=number,
        choices=choices,
        params=dict(trial.params),
        distributions=dict(trial.distributions),
        notes=dict(frozen.system_attrs),
    )


def _sampler(tune: Tune, seed: int) -> optuna.samplers.BaseSampler:
    samplers = optuna.samplers
    if tune.sampler == "tpe":
        # a recipe's own ranges exist in some trials only: group knows them
        return samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP, multivariate=True, group=True
        )
    if tune.sampler == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=tune.batch)
    if tune.sampler == "gp":
        return samplers.GPSampler(
            seed=seed, n_startup_trials=STARTUP, warn_independent_sampling=False
        )
    return samplers.RandomSampler(seed=seed)
