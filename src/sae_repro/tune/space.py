"""The search space of tune/params.yaml: its Optuna parameters, and the cells they make."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.errors import StudyError, did_you_mean, shown
from sae_repro.metrics import find
from sae_repro.params import Study, Tune, check_section, parse, read_yaml
from sae_repro.params.axes import ACTIVATIONS
from sae_repro.params.tune import AT_L0, L0_OFF, TARGET_L0, Range, Values
from sae_repro.tune.measuring import MEASURED
from sae_repro.tune.starts import outside, started

if TYPE_CHECKING:
    import optuna

FOLDER = Path("tune")
CORNERS = 2000
"""Of a recipe's lists of values, at most."""
DIGITS = 3  # significant, of a cell's values: short enough to be read


@dataclass(frozen=True)
class Part:
    """One of `tune.studies`: a recipe at a target L0."""

    recipe: str
    target_l0: float

    @property
    def params(self) -> dict[str, Any]:
        """What all its trials have in common, among their Optuna parameters."""
        return {"recipe": self.recipe, TARGET_L0: self.target_l0}

    def __str__(self) -> str:
        return f"{self.recipe} at L0 {self.target_l0:g}"


def parts_of(tune: Tune) -> list[Part]:
    """The studies of a search in the order of their trials; none where all recipes share one."""
    if tune.studies is None:
        return []
    return [Part(recipe, l0) for recipe in tune.recipes for l0 in tune.studies.target_l0]


def total(tune: Tune) -> int:
    """Trials of all studies together.

    Trial number n is that of study n mod S, of S studies: more trials later renumber none.
    """
    return tune.trials * max(1, len(parts_of(tune)))


def within(tune: Tune, part: Part) -> Tune:
    """The search of one study: its recipe alone, its target L0 fixed."""
    alone = tune.model_copy(
        update={
            "studies": None,
            "recipes": {part.recipe: tune.recipes[part.recipe]},
            "all": {**tune.all, TARGET_L0: part.target_l0},
        }
    )
    alone._defaults = {part.recipe: dict(tune.defaults.get(part.recipe, {}))}
    return alone


def part_in(tune: Tune, params: Mapping[str, Any]) -> Part | None:
    """The study that a trial's Optuna parameters, or their texts, belong to; None without any.

    StudyError where it is none of the search's.
    """
    for part in parts_of(tune):
        if {key: str(params.get(key)) for key in part.params} == {
            key: str(value) for key, value in part.params.items()
        }:
            return part
    if tune.studies is None:
        return None
    raise StudyError(
        f"recipe = {params.get('recipe')}, {TARGET_L0} = {params.get(TARGET_L0)}: none of the "
        "search's studies"
    )


def at_part(
    tune: Tune, part: Part, distributions: Mapping[str, "optuna.distributions.BaseDistribution"]
) -> dict[str, "optuna.distributions.BaseDistribution"]:
    """The distributions of a study's trial among those of all studies."""
    from optuna.distributions import CategoricalDistribution

    assert tune.studies is not None
    return {
        "recipe": CategoricalDistribution(tuple(tune.recipes)),
        TARGET_L0: CategoricalDistribution(tune.studies.target_l0),
        **distributions,
    }


def completed(tune: Tune, recipes: Mapping[str, Mapping[str, Any]]) -> Tune:
    """The search with the recipes of params.yaml, and with what the first trial of a study is."""
    tune = tune.with_recipes(recipes)
    tune._defaults |= started(tune.defaults, _choices(tune))
    return tune


def _choices(tune: Tune) -> dict[str, dict[str, Range | Values]]:
    """What is searched by studies, by recipe; nothing where all recipes share one search."""
    return {
        recipe: {key: choice for key, (_, choice) in _searched(tune, recipe).items()}
        for recipe in (tune.recipes if tune.studies else ())
    }


def load_tune(study: Path) -> tuple[Tune, Study]:
    """The checked tune/params.yaml of `study`, recipes whole, and the study, corners as cells.

    StudyError with one line per fault; a corner is every value with all ranges at one end.
    """
    path = study / FOLDER / "params.yaml"
    raw = read_yaml(path)
    if set(raw) != {"tune"}:
        has = ", ".join(map(shown, islice(raw, 20)))
        raise StudyError(f"{path}: must hold one section, tune; it has {has or 'none'}")
    tune = check_section(Tune, raw["tune"], source=str(path), within="tune")
    settings = read_yaml(study / "params.yaml")
    parse(settings, source=str(study / "params.yaml"))
    try:
        tune = completed(tune, settings["recipes"])
    except ValueError as error:
        raise StudyError(f"{path}: tune.recipes.{error}") from None
    if problems := list(_crowded(tune)):
        raise StudyError("\n".join(f"{path}: {problem}" for problem in problems))
    if problems := list(outside(tune.defaults, _choices(tune))):
        raise StudyError("\n".join(f"{path}: {problem}" for problem in problems))
    # these name cells, of which there are others here
    evaluate = {k: v for k, v in (settings.get("evaluate") or {}).items() if k != "only"}
    try:
        settings |= {"cells": dict(_corners(tune)), "evaluate": evaluate, "report": {}}
        parsed = parse(settings, source=str(path))
    except StudyError as error:
        raise StudyError(str(error).replace(": cells.", ": tune.recipes.")) from None
    problems = list(_unmeasured(tune))
    if problems:
        raise StudyError("\n".join(f"{path}: {problem}" for problem in problems))
    if tune.pruner is not None and tune.pruner.min_steps % parsed.train.checkpoint_every:
        raise StudyError(
            f"{path}: tune.pruner.min_steps = {tune.pruner.min_steps}: must be a multiple of "
            f"train.checkpoint_every = {parsed.train.checkpoint_every}, where trials are evaluated"
        )
    return tune, parsed


def _unmeasured(tune: Tune) -> Iterator[str]:
    """Problems of objectives and constraints: names that no trial is measured by."""
    known = (*MEASURED, AT_L0, L0_OFF)
    for key in ("objectives", "constraints"):
        for name in getattr(tune, key):
            if name not in known:
                what = "not measured on tuning documents" if find(name) else "no such metric"
                yield (
                    f"tune.{key}.{name}: {what}{did_you_mean(name, known)}; a trial has "
                    f"{', '.join(known)}"
                )


def suggest(tune: Tune, trial: "optuna.trial.BaseTrial") -> dict[str, Any]:
    """The cell's choices: a recipe and values of its ranges, suggested by `trial`.

    A range of `all` is one parameter for every recipe; a recipe's own bears the recipe's name.
    """
    names = tuple(tune.recipes)
    recipe = names[0] if len(names) == 1 else trial.suggest_categorical("recipe", names)
    values = {
        key: _suggested(trial, name, choice, tune.defaults.get(recipe, {}).get(key))
        for key, (name, choice) in _searched(tune, recipe).items()
    }
    return _cell(tune, recipe, values)


def default_params(tune: Tune, recipe: str) -> dict[str, Any]:
    """The Optuna parameters by which a trial is the recipe of params.yaml as it is."""
    return {name: tune.defaults[recipe][key] for key, (name, _) in _searched(tune, recipe).items()}


def searched_keys(tune: Tune, recipe: str) -> list[str]:
    """The choices of a cell that are searched with `recipe`, but its target L0."""
    return [key for key in _searched(tune, recipe) if key != TARGET_L0]


def at_l0(choices: Mapping[str, Any], l0: float) -> dict[str, Any]:
    """A trial's cell at another target L0."""
    kept = {key: value for key, value in choices.items() if key not in ("k", TARGET_L0)}
    return _with_l0(kept, l0)


def recipe_of(tune: Tune, params: Mapping[str, Any]) -> str:
    """The recipe that a trial's Optuna parameters chose."""
    return str(params.get("recipe", next(iter(tune.recipes))))


def read_params(tune: Tune, texts: Mapping[str, str]) -> dict[str, Any]:
    """A trial's Optuna parameters from their texts by name; StudyError where one is no choice."""
    if part := part_in(tune, texts):
        rest = {key: text for key, text in texts.items() if key not in part.params}
        return part.params | read_params(within(tune, part), rest)
    recipe = recipe_of(tune, texts)
    if recipe not in tune.recipes:
        raise StudyError(
            f"recipe = {recipe}: not in the space, which has {', '.join(tune.recipes)}"
        )
    searched = dict(_searched(tune, recipe).values())
    if set(texts) - {"recipe"} != set(searched):
        raise StudyError(
            f"{recipe}: has the parameters {', '.join(texts)}, but the space searches "
            f"{', '.join(searched)}"
        )
    values = {name: _read(name, choice, texts[name]) for name, choice in searched.items()}
    return ({"recipe": recipe} if "recipe" in texts else {}) | values


def _read(name: str, choice: Range | Values, text: str) -> Any:
    """The value that is printed as `text`."""
    if isinstance(choice, Values):
        for value in choice.values:
            if str(value) == text:
                return value
        raise StudyError(f"{name} = {text}: not among {', '.join(map(str, choice.values))}")
    value = int(text) if choice.whole else float(text)
    if not choice.low <= value <= choice.high:
        raise StudyError(f"{name} = {text}: not from {choice.low:g} to {choice.high:g}")
    return value


def _merged(tune: Tune, recipe: str) -> dict[str, tuple[str, Any]]:
    """Choice → (its parameter's name, its value or range), a recipe's own last."""
    settings_of_recipe = tune.recipes[recipe]
    overridden = (
        {*settings_of_recipe, TARGET_L0} if "k" in settings_of_recipe else settings_of_recipe.keys()
    )
    return {
        **{key: (key, choice) for key, choice in tune.all.items() if key not in overridden},
        **{key: (f"{recipe}.{key}", choice) for key, choice in settings_of_recipe.items()},
    }


def _searched(tune: Tune, recipe: str) -> dict[str, tuple[str, Range | Values]]:
    return {
        key: (name, choice)
        for key, (name, choice) in _merged(tune, recipe).items()
        if isinstance(choice, Range | Values)
    }


def _suggested(
    trial: "optuna.trial.BaseTrial", name: str, choice: Range | Values, default: Any
) -> Any:
    if isinstance(choice, Values):
        return trial.suggest_categorical(name, choice.values)
    if choice.whole:
        return trial.suggest_int(name, int(choice.low), int(choice.high), log=choice.log)
    value = trial.suggest_float(name, choice.low, choice.high, log=choice.log)
    if value == default:  # to the digit, so that it is the recipe's own cell
        return default
    # rounding must not leave the range
    return min(max(float(f"{value:.{DIGITS}g}"), choice.low), choice.high)


def _cell(tune: Tune, recipe: str, values: Mapping[str, Any]) -> dict[str, Any]:
    choices = {key: choice for key, (_, choice) in _merged(tune, recipe).items()} | dict(values)
    l0 = choices.pop(TARGET_L0, None)
    return choices if l0 is None else _with_l0(choices, l0)


def _with_l0(choices: Mapping[str, Any], l0: Any) -> dict[str, Any]:
    """`choices` with this target L0, as k where the activation counts latents."""
    row = ACTIVATIONS.get(str(choices.get("activation")))
    counts = row is not None and row.l0_set_by == "k"
    # what is no number stays as it is, for the cell's own check
    rounds = counts and isinstance(l0, float) and isfinite(l0)
    return {**choices, "k" if counts else "target_l0": round(l0) if rounds else l0}


def _crowded(tune: Tune) -> Iterator[str]:
    """A line for each recipe whose lists of values make too many corners to check each."""
    for recipe in tune.recipes:
        searched = (choice for _, choice in _searched(tune, recipe).values())
        n = prod(len(choice.values) for choice in searched if isinstance(choice, Values))
        if n > CORNERS:
            yield (
                f"tune.recipes.{recipe}: {n:,} combinations of listed values, of which each must "
                f"be a valid cell; at most {CORNERS:,} can be checked: list fewer values, or give "
                "those that are numbers as a range, {low: …, high: …}"
            )


def _corners(tune: Tune) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in parts_of(tune):
        for name, cell in _corners(within(tune, part)):
            yield f"{name}-{part.target_l0:g}".replace(".", "_"), cell
    if tune.studies is not None:
        return
    for recipe in tune.recipes:
        searched = {key: choice for key, (_, choice) in _searched(tune, recipe).items()}
        lists = {key: c.values for key, c in searched.items() if isinstance(c, Values)}
        ranges = {key: c for key, c in searched.items() if isinstance(c, Range)}
        for number, picked in enumerate(product(*lists.values())):
            for end in ("low", "high") if ranges else ("fixed",):
                at_end = {key: getattr(range_, end) for key, range_ in ranges.items()}
                values = dict(zip(lists, picked, strict=True)) | at_end
                yield f"{recipe}-{end}-{number}", _cell(tune, recipe, values)
