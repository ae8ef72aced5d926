"""Recipes: choices that several cells share, named once; and cells, read with their recipes.

    recipes: {topk: {activation: topk, expansion: 8}}
    cells: {topk-x8-k16: {recipe: topk, k: 16}}

A cell's own keys override those of its recipe, and a recipe may start from another one. A key that
is null is not set, whatever the recipe says, and so has its default; `grad_clip: null` alone is a
value. Once read, a cell is whole: its identity does not depend on how it is written.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    create_model,
)
from pydantic_core import PydanticCustomError

from sae_repro.errors import StudyError, shown
from sae_repro.params.base import Section
from sae_repro.params.cell import Cell
from sae_repro.params.layered import HOOK_KEYS, of_layers, several
from sae_repro.params.scaling import SCALING, Family, Scaling, family
from sae_repro.params.validation import BELOW, FAULTS, check_section

RECIPE = "recipe"
"""The key by which a cell, or a recipe, names the recipe that it starts from."""

CHAIN = 20
"""Recipes of which each starts from the next, at most."""

MANY = 50
"""Names that a message lists, at most."""

NULL_IS_A_VALUE = frozenset({"grad_clip"})
"""Keys whose null is not their default."""

WRITTEN = {name: info.alias or name for name, info in Cell.model_fields.items()}
"""The key of each field of a cell, such as `lambda` of `lambda_`, which is read as well."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=80)]

if TYPE_CHECKING:
    PartialCell = BaseModel
else:  # a cell's own fields: each may be left out or null; the rules between them are `Cell`'s
    PartialCell = create_model(
        "PartialCell",
        __config__=Section.model_config,
        __doc__="Choices of a cell: all that a recipe has, or what a cell has beside its recipe; "
        "null: not set",
        recipe=(
            Name | None,
            Field(None, description="the recipe that it starts from; its own keys override it"),
        ),
        scaling=(
            Scaling | None,
            Field(None, description="cells only: makes it a family, a cell per combination"),
        ),
        **{name: (info.annotation | None, info) for name, info in Cell.model_fields.items()},
    )


def merged(entry: Mapping[str, Any], recipes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The choices of `entry` over those of its recipes; what is null is left out.

    ValueError, `key = name: …`, for an unknown recipe and for one that starts from itself.
    """
    choices: dict[str, Any] = {}
    for part in reversed([entry, *(recipes[name] for name in _lineage(entry, recipes))]):
        # by one name, so that it overrides: of a field's two names the alias would win
        choices |= {WRITTEN.get(key, key): value for key, value in part.items()}
    return {
        key: value
        for key, value in choices.items()
        if key != RECIPE and (value is not None or key in NULL_IS_A_VALUE)
    }


def _lineage(entry: Mapping[str, Any], recipes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The recipe that `entry` starts from, the one that this starts from, and so on."""
    names: list[str] = []
    while (name := (recipes[names[-1]] if names else entry).get(RECIPE)) is not None:
        if not isinstance(name, str) or name not in recipes:
            key = f"recipes.{names[-1]}.{RECIPE}" if names else RECIPE
            raise ValueError(f"{key} = {shown(name)}: no such recipe; {_nearest(name, recipes)}")
        if name in names:
            circle = names[names.index(name) :]
            start = circle.index(min(circle))
            circle = [*circle[start:], *circle[: start + 1]]
            raise ValueError(
                f"recipes.{circle[0]}.{RECIPE} = {circle[1]}: it starts from itself, "
                f"{' → '.join(circle)}"
            )
        names.append(name)
        if len(names) > CHAIN:
            raise ValueError(
                f"recipes.{names[-2]}.{RECIPE} = {name}: more than {CHAIN} recipes in a row, each "
                "started from the next"
            )
    return names


def _nearest(name: Any, recipes: Mapping[str, Any]) -> str:
    close = get_close_matches(shown(name), list(recipes)[:MANY], 1)
    if close:
        return f"did you mean {close[0]}?"
    listed = [*islice(recipes, MANY), *(["…"] if len(recipes) > MANY else [])]
    return f"recipes has {', '.join(listed) or 'none'}"


@dataclass(frozen=True)
class _Written(Mapping[str, Mapping[str, Any]]):
    """Checked recipes as they are written in params.yaml; of many, a cell looks at a few."""

    recipes: Mapping[str, BaseModel]

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self.recipes[name].model_dump(by_alias=True, exclude_unset=True)

    def __iter__(self) -> Iterator[str]:
        return iter(self.recipes)

    def __len__(self) -> int:
        return len(self.recipes)


def _found(recipes: dict[str, BaseModel]) -> dict[str, BaseModel]:
    """The recipes, if each of them starts from recipes that are there."""
    written = _Written(recipes)
    problems = {}
    for name, recipe in recipes.items():
        if getattr(recipe, SCALING) is not None:
            problems[f"{name}.{SCALING}: a cell's, not a recipe's; move it into cells"] = name
        try:
            _lineage({RECIPE: name}, written)
        except ValueError as error:
            problems[str(error).removeprefix("recipes.")] = name
            if len(problems) > FAULTS:
                break
    if problems:
        raise PydanticCustomError(BELOW, "{lines}", {"lines": "\n".join(problems)})
    return recipes


def by_layer(cells: Mapping[str, Any], recipes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """`cells`, each whose hook stands for several layers replaced by `<name>-layer<n>` of each.

    A target_hook that does makes pairs with it, layer by layer; among `hooks` each layer is one of
    them. ValueError, `name.hook = …`, where it does not say which layers, where hook and
    target_hook have other numbers of them, or a name is taken.
    """
    in_recipes = any(several(recipes[name].get(key)) for name in recipes for key in HOOK_KEYS)
    each: dict[str, Any] = {}
    for name, entry in cells.items():
        if not isinstance(entry, Mapping):
            each[name] = entry
            continue
        whole = merged(entry, recipes) if in_recipes and RECIPE in entry else entry
        copies = of_layers(name, {key: whole.get(key) for key in HOOK_KEYS})
        if copies is None:
            each[name] = entry
            continue
        for copy, hooks in copies.items():
            if copy in cells and copy != name:
                at = f"{name}.hook = {whole.get('hook')}"
                raise ValueError(f"{at}: there is a cell {copy}; rename it")
            each[copy] = {**entry, **hooks}
    return each


def _each_layer(cells: Any, info: ValidationInfo) -> Any:
    """The cells of a study as `by_layer` has them."""
    recipes = info.data.get("recipes")
    if not isinstance(cells, Mapping):
        return cells
    try:
        return by_layer(cells, _Written(recipes or {}))
    except ValueError as error:
        raise PydanticCustomError(BELOW, "{lines}", {"lines": str(error)}) from None


def _whole(entry: Any, info: ValidationInfo) -> Any:
    """The cell's choices with those of its recipes."""
    if not isinstance(entry, Mapping):
        return entry
    recipes = info.data.get("recipes")
    if recipes is None and RECIPE in entry:
        return {"baseline": "neurons"}  # any valid cell: the recipes are refused, and all with them
    try:
        return merged(entry, _Written(recipes or {}))
    except ValueError as error:
        raise PydanticCustomError(BELOW, "{lines}", {"lines": str(error)}) from None


def _expanded(cells: Any) -> Any:
    """The cells with those of families in the place of these."""
    if not isinstance(cells, Mapping):
        return cells
    try:
        return expanded(cells)
    except ValueError as error:
        raise PydanticCustomError(BELOW, "{lines}", {"lines": str(error)}) from None


Recipes = Annotated[dict[Name, PartialCell], AfterValidator(_found)]
Cells = Annotated[
    dict[Name, Annotated[Cell, BeforeValidator(_whole)]],
    Field(min_length=1),
    BeforeValidator(_each_layer),
    BeforeValidator(_expanded),
]
"""Cells by name; in a section they follow the field `recipes`, which they are read with."""


def families(cells: Mapping[str, Any]) -> dict[str, Family]:
    """The families among the `cells` of params.yaml; ValueError, a line per fault."""
    found, problems = {}, []
    for name, entry in cells.items():
        if isinstance(name, str) and isinstance(entry, Mapping) and entry.get(SCALING) is not None:
            within = f"{shown(name)}.{SCALING}"
            try:
                scaling = check_section(Scaling, entry[SCALING], source=SCALING, within=within)
                found[name] = family(name, entry, scaling)
            except StudyError as error:
                problems += [line.removeprefix(f"{SCALING}: ") for line in str(error).split("\n")]
            except ValueError as error:
                problems += [f"{shown(name)}.{line}" for line in str(error).split("\n")]
    if problems:
        raise ValueError("\n".join(problems))
    return found


def expanded(cells: Mapping[str, Any]) -> dict[str, Any]:
    """The `cells` of params.yaml with a family's cells in its place; ValueError for a fault."""
    found = families(cells)
    written: dict[str, Any] = {}
    for name, entry in cells.items():
        for own, choices in found[name].cells.items() if name in found else [(name, entry)]:
            if own in written or (own != name and own in cells):
                raise ValueError(f"{name}: its cell {own} is there already; rename one of them")
            written[own] = choices
    return written


def read_cells(recipes: Mapping[str, Any], cells: Mapping[str, Any]) -> dict[str, Cell]:
    """The cells of a study's params.yaml, whole; StudyError with one line per fault."""
    try:
        each = by_layer(expanded(cells), recipes)
    except ValueError as error:
        lines = str(error).split("\n")
        raise StudyError("\n".join(f"params.yaml: cells.{line}" for line in lines)) from None
    return {
        name: check_section(Cell, _of_study(name, choices, recipes), within=f"cells.{name}")
        for name, choices in each.items()
    }


def _of_study(name: str, entry: Mapping[str, Any], recipes: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return merged(entry, recipes)
    except ValueError as error:
        raise StudyError(f"params.yaml: cells.{name}.{error}") from None
