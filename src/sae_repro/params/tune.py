"""tune/params.yaml: the search space, sampler and objectives of an Optuna study.

A recipe is a cell's choices of which some are ranges: `{low: 1e-3, high: 1e-1, log: true}` or
`{values: [fixed, random]}` stand where a cell has a value. `recipe: topk` among them starts from
this recipe of params.yaml. `tune.space` makes cells of them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from sae_repro.errors import shown
from sae_repro.params.base import Count, Many, Section, Seed, Text
from sae_repro.params.cell import Cell
from sae_repro.params.evaluate import Chosen
from sae_repro.params.recipes import NULL_IS_A_VALUE, RECIPE, merged

Scalar = bool | int | float | Text
Number = int | float
RecipeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=40)]

TARGET_L0 = "target_l0"
"""The target L0 of any recipe: becomes k with topk and batchtopk, else target_l0."""


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
    tokens: Count = Field(8192, description="validation tokens behind each of these evaluations")


class Tune(Section):
    """One Optuna study over cells: search space, sampler and objectives."""

    seed: Seed = Field(0, description="the seed of the sampler")
    trials: Count = Field(32, description="trials in all; raise it to continue the same study")
    batch: Annotated[int, Field(ge=2, le=10_000)] = Field(
        8,
        description="trials proposed at once, from all earlier batches; these can run side "
        "by side, and are nsga2's population",
    )
    sampler: Literal["tpe", "nsga2", "gp", "random"] = Field(
        "tpe", description="Optuna's sampler: tpe, nsga2, gp, random"
    )
    objectives: Annotated[
        dict[Text, Literal["minimize", "maximize"]], Field(min_length=1, max_length=3)
    ] = Field(
        {"l0": "minimize", "fvu": "minimize"},
        description="metric of metrics.json → minimize or maximize; several: their Pareto front",
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
    metrics: Many[Chosen] | None = Field(
        None,
        description="instead of evaluate.metrics, e.g. [] for quicker trials; null: the same, so "
        "that an adopted cell needs no evaluation either",
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
    def single(self) -> bool:
        """Whether one number, and not a front, decides which trial is best."""
        return len(self.objectives) == 1 or bool(self.weights)

    def with_recipes(self, recipes: Mapping[str, Mapping[str, Any]]) -> "Tune":
        """The same search, its recipes whole: with the choices of params.yaml's `recipes`.

        ValueError, `name.recipe = …`, for one that is not there or sets what no trial can have.
        """
        whole = {
            name: self._whole(name, choices, recipes) for name, choices in self.recipes.items()
        }
        return self.model_copy(update={"recipes": whole})

    def _whole(
        self, name: str, choices: Mapping[str, Any], recipes: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        try:
            inherited = merged({RECIPE: choices.get(RECIPE)}, recipes)
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from None
        if fixed := inherited.keys() - SEARCHABLE:
            raise ValueError(
                f"{name}.{RECIPE} = {choices[RECIPE]}: sets {', '.join(sorted(fixed))}, which no "
                "trial can have; name another recipe, or none"
            )
        replaced = {*self.all, *choices}
        if replaced & {"k", TARGET_L0}:
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
        if problems:
            raise ValueError("\n".join(problems))
        return self
