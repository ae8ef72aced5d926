"""tune/params.yaml: the search space, sampler and objectives of an Optuna study.

A recipe is a cell's choices of which some are ranges: `{low: 1e-3, high: 1e-1, log: true}` or
`{values: [fixed, random]}` stand where a cell has a value. `recipe: topk` among them starts from
this recipe of params.yaml. `tune.space` makes cells of them.

With `studies`, each recipe is tuned by itself at each target L0, all with the same budget.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, StringConstraints, model_validator

from sae_repro.errors import shown
from sae_repro.params.base import Count, Many, Section, Seed, Text
from sae_repro.params.cell import Cell
from sae_repro.params.fp32 import Positive
from sae_repro.params.recipes import NULL_IS_A_VALUE, RECIPE, merged

Scalar = bool | int | float | Text
Number = int | float
RecipeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=40)]

TARGET_L0 = "target_l0"
"""The target L0 of any recipe: becomes k with topk and batchtopk, else target_l0."""
AT_L0, L0_OFF = "fvu_at_l0", "l0_off"
"""Of a trial with a target L0: its FVU read there, and |L0 / target − 1|."""


class Range(Section):
    """A range of numbers to search; whole numbers where both ends are."""

    low: Number = Field(description="least value")
    high: Number = Field(description="largest value")
    log: bool = Field(False, description="whether to search evenly in the logarithm")

    @model_validator(mode="after")
    def _ends_fit(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} must be below high = {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low = {self.low:g}: a logarithm needs low > 0")
        return self

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are searched."""
        return isinstance(self.low, int) and isinstance(self.high, int)


class Values(Section):
    """A few values to choose from."""

    values: Annotated[Many[Scalar], Field(min_length=2)] = Field(description="the values")


def _choice(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Values.model_validate(value) if "values" in value else Range.model_validate(value)
    return value


SEARCHABLE = frozenset({field.alias or name for name, field in Cell.model_fields.items()}) - {
    "import",
    "sha256",
    "baseline",
    "seeds",
}
"""Names of the choices that a recipe may have."""

DEFAULTS = {field.alias or name: field.default for name, field in Cell.model_fields.items()}
"""A cell's own defaults, by their names in params.yaml."""

Choices = dict[str, Annotated[Any, BeforeValidator(_choice)]]
"""A cell's choices by their names in params.yaml; a value, a `Range` or `Values`."""


class Hyperband(Section):
    """Stops trials early by their held-out FVU at checkpoints; for one objective, fvu."""

    min_steps: Count = Field(
        description="training steps before a trial may be stopped; a multiple of "
        "train.checkpoint_every, where trials are evaluated"
    )
    reduction_factor: Annotated[int, Field(ge=2, le=1000)] = Field(
        3, description="of the trials that reach a rung, one in this many goes on"
    )
    tokens: Count = Field(8192, description="tuning tokens behind each of these evaluations")


class Studies(Section):
    """A study of its own for each recipe and target L0, by the FVU at this L0."""

    target_l0: Annotated[Many[Positive], Field(min_length=1)] = Field(
        description="target L0s; with topk and batchtopk, k"
    )
    l0_tolerance: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="a trial whose L0 misses its target by a larger share is never best"
    )
    seeds: Annotated[Many[Annotated[Seed, Field(ge=1)]], Field(min_length=1)] = Field(
        (1, 2),
        description="seeds with which a recipe's own and chosen settings are compared; trials "
        "have seed 0",
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for name in ("target_l0", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names one value twice")
        return self


class Tune(Section):
    """One Optuna study over cells, or several alike: search space, sampler and objectives."""

    _defaults: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)

    seed: Seed = Field(0, description="the seed of the sampler")
    trials: Count = Field(
        32, description="trials in all, or of each study; raise it to continue the same search"
    )
    batch: Annotated[int, Field(ge=2, le=10_000)] = Field(
        8,
        description="trials proposed at once, in each study, from all its earlier batches; these "
        "can run side by side, and are nsga2's population",
    )
    sampler: Literal["tpe", "nsga2", "gp", "random"] = Field(
        "tpe", description="Optuna's sampler: tpe, nsga2, gp, random"
    )
    objectives: Annotated[
        dict[Text, Literal["minimize", "maximize"]], Field(min_length=1, max_length=3)
    ] = Field(
        {"l0": "minimize", "fvu": "minimize"},
        description="metric of sparsity, reconstruction or dead latents, on the tuning documents → "
        "minimize or maximize; several: their Pareto front; not with studies",
    )
    weights: dict[Text, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="of every objective: one weighted sum is minimized (maximize counts negative) "
        "instead of a front",
    )
    constraints: dict[Text, float] = Field(
        default_factory=dict,
        description="metric → largest value allowed; trials above it are kept, but never best",
    )
    studies: Studies | None = Field(
        None,
        description="tune each recipe by itself at each of several target L0s; null: one search "
        "over all recipes",
    )
    pruner: Hyperband | None = Field(
        None, description="Hyperband, for the single objective fvu; null: every trial ends"
    )
    all: Choices = Field(
        default_factory=dict,
        description="choices and ranges that all recipes have in common: they override those of "
        "params.yaml's recipes, and a recipe's own override them",
    )
    recipes: Annotated[dict[RecipeName, Choices], Field(min_length=1)] = Field(
        description="name → choices and ranges as in a cell, and `recipe`, one of params.yaml's to "
        "start from; with topk and batchtopk, target_l0 becomes k"
    )

    @property
    def defaults(self) -> Mapping[str, Mapping[str, Any]]:
        """Per recipe, the values from params.yaml of what is searched; see `with_recipes`."""
        return self._defaults

    @property
    def single(self) -> bool:
        """Whether one number, and not a front, decides which trial is best."""
        return len(self.objectives) == 1 or bool(self.weights)

    def with_recipes(self, recipes: Mapping[str, Mapping[str, Any]]) -> "Tune":
        """The same search, its recipes whole: with the choices of params.yaml's `recipes`.

        With `studies`, its objective and constraint are those that each of them has. ValueError,
        `name.recipe = …`, for one that is not there or sets what no trial can have.
        """
        inherited = {
            name: self._inherited(name, choices, recipes) for name, choices in self.recipes.items()
        }
        update: dict[str, Any] = {
            "recipes": {
                name: self._whole(choices, inherited[name])
                for name, choices in self.recipes.items()
            }
        }
        if self.studies is not None:
            update |= {
                "objectives": {AT_L0: "minimize"},
                "constraints": {**self.constraints, L0_OFF: self.studies.l0_tolerance},
            }
        whole = self.model_copy(update=update)
        whole._defaults = {
            name: {
                key: inherited[name].get(key, DEFAULTS[key])
                for key, choice in {**self.all, **choices}.items()
                if isinstance(choice, Range | Values) and key != TARGET_L0
            }
            for name, choices in self.recipes.items()
        }
        return whole

    def _inherited(
        self, name: str, choices: Mapping[str, Any], recipes: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The choices of the recipe of params.yaml that a recipe starts from."""
        try:
            inherited = merged({RECIPE: choices.get(RECIPE)}, recipes)
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from None
        if self.studies is not None:  # whose own seeds are the same for all recipes
            inherited = {k: v for k, v in inherited.items() if k not in ("seed", "seeds")}
        if fixed := inherited.keys() - SEARCHABLE:
            raise ValueError(
                f"{name}.{RECIPE} = {choices[RECIPE]}: sets {', '.join(sorted(fixed))}, which no "
                "trial can have; name another recipe, or none"
            )
        return inherited

    def _whole(self, choices: Mapping[str, Any], inherited: Mapping[str, Any]) -> dict[str, Any]:
        replaced = {*self.all, *choices}
        if replaced & {"k", TARGET_L0} or self.studies is not None:
            replaced |= {"k", TARGET_L0}
        return {key: value for key, value in inherited.items() if key not in replaced} | {
            key: value
            for key, value in choices.items()
            if key != RECIPE and (value is not None or key in NULL_IS_A_VALUE)
        }

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        problems = [
            f"{where}.{shown(name)}: no choice of a cell that can be searched"
            for where, choices in [("all", self.all), *self.recipes.items()]
            for name in choices
            if name not in SEARCHABLE and not (name == RECIPE and where != "all")
        ]
        if self.weights and set(self.weights) != set(self.objectives):
            problems.append(
                f"weights: name each objective, and nothing else ({', '.join(self.objectives)})"
            )
        if self.pruner is not None and dict(self.objectives) != {"fvu": "minimize"}:
            problems.append(
                "pruner: stops trials by their held-out FVU, so it needs "
                "objectives: {fvu: minimize}; set pruner to null for any other"
            )
        if self.studies is not None:
            problems += self._not_with_studies()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _not_with_studies(self) -> list[str]:
        problems = [
            f"{key}: not with studies, whose objective is FVU at the target L0; delete {key}"
            for key in ("objectives", "weights", "pruner")
            if key in self.model_fields_set and getattr(self, key)
        ]
        for where, choices in [("all", self.all), *self.recipes.items()]:
            problems += [
                f"{where}.{key}: studies.target_l0 decides it; delete {key}"
                for key in ("k", TARGET_L0, "seed")
                if key in choices
            ]
        return problems
