"""Figures of several studies: a panel per target L0, a line and a label per recipe."""

from collections.abc import Mapping, Sequence
from math import log
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from optuna.distributions import BaseDistribution
from optuna.trial import create_trial

from sae_repro.compare.drawing import drawn, handle, logarithmic
from sae_repro.params import Tune
from sae_repro.params.appearance import Look
from sae_repro.params.tune import AT_L0, TARGET_L0
from sae_repro.tune.confirming import best_in
from sae_repro.tune.proposals import quiet, study_of
from sae_repro.tune.records import TrialRecord
from sae_repro.tune.space import Part, parts_of, within

FVU = "FVU at the target L0, tuning documents"
Trials = Mapping[Part, Sequence[TrialRecord]]


def by_part(tune: Tune, records: Sequence[TrialRecord]) -> dict[Part, list[TrialRecord]]:
    """The trials of each study in their order."""
    parts = parts_of(tune)
    return {part: list(records[place :: len(parts)]) for place, part in enumerate(parts)}


def front(folder: Path, tune: Tune, trials: Trials, looks: Mapping[str, Look]) -> None:
    """FVU over L0: every trial, hollow where it breaks a constraint; a line through the best."""
    with drawn(folder, "front", 6.4, 4.2) as figure:
        ax = figure.subplots()
        for recipe, look in looks.items():
            own = [(part, found) for part, found in trials.items() if part.recipe == recipe]
            for t in [t for _, found in own for t in found if t.status == "ok"]:
                ax.scatter(
                    t.metrics["l0"], t.metrics["fvu"], s=14, marker=look.marker, lw=0.8, alpha=0.5,
                    color=look.colour if t.feasible else "none", edgecolor=look.colour,
                )  # fmt: skip
            best = [best_in(found)[0] for _, found in own if best_in(found)]
            _line(
                ax, recipe, look,
                [t.metrics["l0"] for t in best], [t.metrics["fvu"] for t in best],
            )  # fmt: skip
        _logarithmic(ax, "xy")
        ax.set(xlabel="L0", ylabel="FVU, tuning documents")
        figure.suptitle("All trials; line: the best of each study", fontsize=10)


def history(folder: Path, tune: Tune, trials: Trials, looks: Mapping[str, Look]) -> None:
    """The best so far of each study by the number of its trials; the first is the recipe itself."""
    assert tune.studies is not None
    targets = tune.studies.target_l0
    with drawn(folder, "history", 7.0, 2.6 * len(targets) + 0.6) as figure:
        axes = figure.subplots(len(targets), 1, squeeze=False, sharex=True)[:, 0]
        for ax, l0 in zip(axes, targets, strict=True):
            for recipe, look in looks.items():
                steps: list[tuple[int, float]] = []
                for number, t in enumerate(trials[Part(recipe, l0)]):
                    if t.status != "ok" or not t.feasible:
                        continue
                    ax.scatter(number, t.losses[0], s=10, color=look.colour, alpha=0.4)
                    steps.append((number, min([t.losses[0], *(fvu for _, fvu in steps[-1:])])))
                _line(ax, recipe, look, [n for n, _ in steps], [fvu for _, fvu in steps])
            _logarithmic(ax, "y")
            ax.set(ylabel=f"L0 {l0:g}")
        axes[-1].set(xlabel="trial of the study")
        figure.suptitle(f"{FVU}; line: the best so far", fontsize=10)


def slices(folder: Path, tune: Tune, trials: Trials, looks: Mapping[str, Look]) -> None:
    """FVU over each searched range, a row per target L0."""
    assert tune.studies is not None
    targets = tune.studies.target_l0
    names = sorted(
        {name for found in trials.values() for t in found for name in t.params}
        - {"recipe", TARGET_L0}
    )
    if not names:
        return
    with drawn(folder, "slice", 2.3 * len(names) + 1.4, 2.1 * len(targets) + 0.5) as figure:
        grid = figure.subplots(len(targets), len(names), squeeze=False, sharex="col", sharey="row")
        for row, l0 in zip(grid, targets, strict=True):
            for ax, name in zip(row, names, strict=True):
                for recipe, look in looks.items():
                    own = [
                        t for t in trials[Part(recipe, l0)]
                        if t.status == "ok" and name in t.params
                    ]  # fmt: skip
                    values = [t.params[name] for t in own]
                    words = any(isinstance(value, str | bool) for value in values)
                    ax.scatter(
                        [str(value) for value in values] if words else values,
                        [t.metrics[AT_L0] for t in own], s=12, color=look.colour,
                        marker=look.marker,
                    )  # fmt: skip
                _logarithmic(ax, "y")
                choice = tune.all.get(name) or tune.recipes[name.split(".")[0]].get(
                    name.rpartition(".")[2]
                )
                if getattr(choice, "log", False):
                    _logarithmic(ax, "x")
                ax.tick_params(labelsize=7)
            row[0].set(ylabel=f"L0 {l0:g}")
        for ax, name in zip(grid[-1], names, strict=True):
            ax.set_xlabel(name, fontsize=8)
        figure.legend(handles=list(map(handle, looks.values())), loc="outside right center")
        figure.suptitle(f"{FVU}, over the searched ranges", fontsize=10)


def importance(
    folder: Path,
    tune: Tune,
    trials: Trials,
    distributions: Mapping[int, dict[str, BaseDistribution]],
    *,
    top: float,
    least: int,
) -> None:
    """Importance of each parameter for a recipe's best trials, its L0s together, by PED-ANOVA.

    Values are log FVU less the mean of the study. None for a recipe with fewer than `least` trials.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    found: dict[str, dict[str, float]] = {}
    for recipe in tune.recipes:
        parts = [part for part in trials if part.recipe == recipe]
        rows = [
            create_trial(
                value=log(t.losses[0]) - fmean(log(other.losses[0]) for other in held),
                params={k: v for k, v in t.params.items() if k not in parts[0].params},
                distributions={
                    k: d for k, d in distributions[t.number].items() if k not in parts[0].params
                },
            )
            for part in parts
            if (held := [t for t in trials[part] if t.status == "ok" and t.feasible])
            for t in held
        ]
        if len(rows) < least:
            continue
        with quiet():
            study = study_of(within(tune, parts[0]), "importance", rows)
            found[recipe] = {
                name.removeprefix(f"{recipe}."): value
                for name, value in get_param_importances(
                    study, evaluator=PedAnovaImportanceEvaluator(target_quantile=top)
                ).items()
            }
    if not found:
        return
    names = sorted({name for importances in found.values() for name in importances})
    with drawn(folder, "importance", 1.0 * len(names) + 2.2, 0.4 * len(found) + 1.6) as figure:
        ax = figure.subplots()
        values = [[found[recipe].get(name, 0.0) for name in names] for recipe in found]
        ax.imshow(values, cmap="Greys", vmin=0, vmax=1, aspect="auto")
        for y, recipe in enumerate(found):
            for x, name in enumerate(names):
                if name in found[recipe]:
                    value = found[recipe][name]
                    ax.text(
                        x, y, f"{value:.2f}", ha="center", va="center", fontsize=8,
                        color="white" if value > 0.5 else "black",
                    )  # fmt: skip
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
        ax.set_yticks(range(len(found)), list(found))
        ax.grid(visible=False)
        figure.suptitle(f"What separates the best {top:.0%} of a recipe's trials", fontsize=10)


def _line(ax: Axes, recipe: str, look: Look, x: Sequence[float], y: Sequence[float]) -> None:
    """A line with the recipe's name at its end."""
    if not x:
        return
    ax.plot(x, y, color=look.colour, marker=look.marker, ms=4, lw=1.2)
    ax.annotate(
        recipe, (x[-1], y[-1]), xytext=(5, 0), textcoords="offset points", color=look.colour,
        fontsize=7, va="center",
    )  # fmt: skip


def _logarithmic(ax: Axes, letters: str) -> None:
    for letter in letters:
        ax.set(**{f"{letter}scale": "log"})
        logarithmic(ax.xaxis if letter == "x" else ax.yaxis)
