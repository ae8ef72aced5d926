"""Figures of a study: its front beside the grid's, history, importances and slices.

Drawn as the tables' figures are (`compare.drawing`): the same bytes from the same numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from optuna.trial import FrozenTrial

from sae_repro.compare.drawing import drawn, handle, logarithmic
from sae_repro.errors import StudyError, one_line
from sae_repro.metrics import names_in
from sae_repro.metrics.labels import heading
from sae_repro.params import Cell, Tune
from sae_repro.params.appearance import Look, looks
from sae_repro.params.architecture import architecture_of
from sae_repro.tune import study_figures
from sae_repro.tune.proposals import quiet, study_of
from sae_repro.tune.records import TrialRecord
from sae_repro.tune.results import best_of

LOGARITHMIC = (*names_in("frontier"), "lr", "lambda", "k", "target_l0", "expansion")
TOP = 0.2  # of the trials: importance is how a parameter separates these from the rest
LEAST = 10  # finished trials for an importance: below that a fifth is one trial


def write_figures(
    folder: Path,
    tune: Tune,
    trials: Sequence[FrozenTrial],
    records: Sequence[TrialRecord],
    *,
    grid: Path,
) -> None:
    """All figures of the trials that finished; none without one.

    `grid` is the cells.csv of the study's own cells, drawn beside the trials where it is there.
    """
    finished = [t for t in records if t.status == "ok"]
    if not finished:
        return
    if tune.studies is not None:
        _of_studies(folder, tune, trials, records)
        return
    looks_of = looks(_architecture(t) for t in records)
    front(folder, tune, finished, looks_of, _cells(grid))
    history(folder, tune, records, looks_of)
    if len(finished) >= LEAST:
        importance(folder, tune, trials)
    slices(folder, tune, finished, looks_of)


def _of_studies(
    folder: Path, tune: Tune, trials: Sequence[FrozenTrial], records: Sequence[TrialRecord]
) -> None:
    found = study_figures.by_part(tune, records)
    # named by recipe: two of them may have one architecture
    architectures = dict.fromkeys(tune.recipes, "")
    for part, own in found.items():
        architectures[part.recipe] = _architecture(own[0])
    several = looks(architectures.values())
    looks_of = {
        recipe: replace(several[architecture], label=recipe)
        for recipe, architecture in architectures.items()
    }
    study_figures.front(folder, tune, found, looks_of)
    study_figures.history(folder, tune, found, looks_of)
    study_figures.slices(folder, tune, found, looks_of)
    both = zip(records, trials, strict=True)
    distributions = {record.number: trial.distributions for record, trial in both}
    study_figures.importance(folder, tune, found, distributions, top=TOP, least=LEAST)


def _cells(path: Path) -> pd.DataFrame:
    """The grid's cells; empty without a grid, StudyError where the table is damaged."""
    if not path.is_file():
        return pd.DataFrame()
    try:
        cells = pd.read_csv(path)
        if missing := sorted({"hook", "status", "negative_control"} - set(cells.columns)):
            raise ValueError(f"no column {', '.join(missing)}")
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{path}: can't be read ({one_line(str(error).strip())}); "
            "`dvc repro --force --single-item compare` makes it again"
        ) from None
    return cells


def _architecture(t: TrialRecord) -> str:
    return architecture_of(Cell.model_validate(t.choices))


def _of(trials: Sequence[TrialRecord], architecture: str) -> list[TrialRecord]:
    return [t for t in trials if _architecture(t) == architecture]


def _axes_of(tune: Tune) -> tuple[str, str]:
    """The two metrics of the plane: the objectives, or L0 and the one objective."""
    names = list(tune.objectives)
    if len(names) > 1:
        return names[0], names[1]
    return ("fvu", "l0") if names == ["l0"] else ("l0", names[0])


def front(
    folder: Path,
    tune: Tune,
    finished: Sequence[TrialRecord],
    looks_of: Mapping[str, Look],
    cells: pd.DataFrame,
) -> None:
    """Every trial in the plane of the objectives, the best ones joined, the grid in grey."""
    x, y = _axes_of(tune)
    best = [t for t in best_of(tune, finished) if {x, y} <= t.metrics.keys()]
    with drawn(folder, "front", 6.4, 4.2) as figure:
        ax = figure.subplots()
        if {x, y} <= set(cells.columns):
            hook = cells.loc[0, "hook"]  # the first, as for a cell that names none
            grid = cells[(cells["status"] == "ok") & (cells["hook"] == hook)]
            grid = grid[grid["negative_control"] == "no"]
            ax.scatter(grid[x], grid[y], s=18, marker="s", color="0.75", label="cells of the grid")
        for name, look in looks_of.items():
            for feasible in (True, False):
                trials = [
                    t for t in _of(finished, name)
                    if t.feasible == feasible and {x, y} <= t.metrics.keys()
                ]  # fmt: skip
                if trials:
                    ax.scatter(
                        [t.metrics[x] for t in trials], [t.metrics[y] for t in trials], s=26,
                        marker=look.marker, color=look.colour if feasible else "none",
                        edgecolor=look.colour, lw=0.8,
                        label=name + ("" if feasible else ", a constraint broken"),
                    )  # fmt: skip
        best.sort(key=lambda t: t.metrics[x])
        ax.plot(
            [t.metrics[x] for t in best], [t.metrics[y] for t in best],
            color="0.2", lw=0.9, marker="o" if len(best) == 1 else None, mfc="none", ms=9,
            label="best" if tune.single else "front",
        )  # fmt: skip
        _scale(ax, [x, y])
        ax.set(xlabel=heading(x), ylabel=heading(y))
        figure.legend(loc="outside right center")
        figure.suptitle(f"{len(finished)} finished trials, tuning documents", fontsize=10)


def history(
    folder: Path, tune: Tune, records: Sequence[TrialRecord], looks_of: Mapping[str, Look]
) -> None:
    """Each objective by trial, with the best that holds the constraints so far."""
    names = list(tune.objectives)
    with drawn(folder, "history", 7.0, 2.2 * len(names) + 0.6) as figure:
        axes = figure.subplots(len(names), 1, squeeze=False, sharex=True)[:, 0]
        for ax, name in zip(axes, names, strict=True):
            finished = [t for t in records if t.status == "ok"]
            for architecture, look in looks_of.items():
                trials = _of(finished, architecture)
                ax.scatter(
                    [t.number for t in trials], [t.metrics[name] for t in trials], s=18,
                    color=look.colour, marker=look.marker,
                    label=architecture if name == names[0] else None,
                )  # fmt: skip
            for t in records:
                if t.status != "ok":
                    ax.axvline(t.number, color="0.85", lw=3 if t.status == "failed" else 1)
            numbers, so_far = _running_best(finished, name, tune.objectives[name])
            ax.step(numbers, so_far, where="post", color="0.2", lw=0.9)
            ax.set(ylabel=heading(name))
            _scale(ax, ["", name])
        axes[-1].set(xlabel="trial")
        figure.legend(loc="outside right center")
        unfinished = {s: sum(t.status == s for t in records) for s in ("failed", "pruned")}
        figure.suptitle(
            f"{len(records)} trials, {unfinished['failed']} failed (broad), "
            f"{unfinished['pruned']} pruned (narrow); line: best so far",
            fontsize=10,
        )


def _running_best(
    finished: Sequence[TrialRecord], name: str, direction: str
) -> tuple[list[int], list[float]]:
    pick = min if direction == "minimize" else max
    numbers: list[int] = []
    best: list[float] = []
    for t in finished:
        if t.feasible:
            numbers.append(t.number)
            best.append(pick([*best[-1:], t.metrics[name]]))
    return numbers, best


def importance(folder: Path, tune: Tune, trials: Sequence[FrozenTrial]) -> None:
    """Importance of each parameter for being among the best fifth, by PED-ANOVA; sums to 1.

    Source: Watanabe, Bansal, Hutter 2023, arXiv 2304.10255; for ranges that only some recipes have,
    arXiv 2601.20800; both as in Optuna.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with quiet():
        study = study_of(tune, "importance", trials)
        importances = get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(target_quantile=TOP)
        )
    # ties in an order that no hash decides
    rows = sorted(importances.items(), key=lambda item: (item[1], item[0]))
    with drawn(folder, "importance", 6.0, 0.28 * len(rows) + 1.0) as figure:
        ax = figure.subplots()
        ax.barh([name for name, _ in rows], [value for _, value in rows], color="0.45")
        ax.set(xlabel="importance (sums to 1)")
        ax.grid(axis="y", visible=False)
        figure.suptitle(
            f"Parameters that separate the best {TOP:.0%} of trials from the others", fontsize=10
        )


def slices(
    folder: Path, tune: Tune, finished: Sequence[TrialRecord], looks_of: Mapping[str, Look]
) -> None:
    """Each objective over each range that was searched, one at a time."""
    params = sorted({name for t in finished for name in t.params if name != "recipe"})
    objectives = list(tune.objectives)
    if not params:
        return
    with drawn(folder, "slice", 2.3 * len(params) + 1.4, 2.1 * len(objectives) + 0.5) as figure:
        grid = figure.subplots(
            len(objectives), len(params), squeeze=False, sharex="col", sharey="row"
        )
        for row, objective in zip(grid, objectives, strict=True):
            for ax, param in zip(row, params, strict=True):
                for architecture, look in looks_of.items():
                    trials = [t for t in _of(finished, architecture) if param in t.params]
                    values = [t.params[param] for t in trials]
                    words = any(isinstance(v, str | bool) for v in values)
                    ax.scatter(
                        [str(v) for v in values] if words else values,
                        [t.metrics[objective] for t in trials], s=12, color=look.colour,
                        marker=look.marker,
                        )  # fmt: skip
                _scale(ax, [param, objective])
                ax.tick_params(labelsize=7)
            row[0].set(ylabel=heading(objective))
        for ax, param in zip(grid[-1], params, strict=True):
            ax.set_xlabel(param, fontsize=8)
        figure.legend(
            handles=list(map(handle, looks_of.values())),
            loc="outside right center",
        )
        figure.suptitle("Objectives over the searched ranges", fontsize=10)


def _scale(ax: Axes, names: Sequence[str]) -> None:
    """Logarithmic axes, with plain numbers, for quantities that span decades."""
    for name, axis, letter in zip(names, (ax.xaxis, ax.yaxis), "xy", strict=True):
        if name.rpartition(".")[2] in LOGARITHMIC:
            ax.set(**{f"{letter}scale": "log"})
            logarithmic(axis)
