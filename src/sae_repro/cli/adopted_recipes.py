"""Tuned settings written into params.yaml's recipes: values only, every other byte as it was."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from sae_repro.errors import StudyError
from sae_repro.params import parse, read_yaml
from sae_repro.params.recipes import RECIPE, merged
from sae_repro.params.tune import DEFAULTS
from sae_repro.tune.space import FOLDER

SCALAR = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"\\]|\\.)*\"|[^\s,}#][^,}#\n]*?(?=\s*(?:[,}\n]|\s#|$))"
)
"""A value as it is written, up to what ends it."""


def tuned_recipes(study: Path) -> Iterator[str | dict[str, dict[str, Any]]]:
    """Notes, then the settings that are better, by the recipe of params.yaml that they are for.

    StudyError where a recipe of the search starts from none, so that there is none to write into.
    """
    best = read_yaml(study / FOLDER / "best.yaml")["recipes"]
    searched = read_yaml(study / FOLDER / "params.yaml")["tune"]["recipes"]
    settings: dict[str, dict[str, Any]] = {}
    for name, entry in best.items():
        recipe = searched.get(name, {}).get(RECIPE)
        if not entry["improved"]:
            yield f"{name}: stays as it is: no setting found was better with every further seed"
        elif recipe is None:
            yield f"{name}: starts from no recipe of params.yaml; adopt --trial {entry['trial']}"
        elif recipe in settings:
            raise StudyError(
                f"{study / FOLDER / 'params.yaml'}: two recipes of the search start from "
                f"recipes.{recipe}, and both are better: their settings can't both be written there"
            )
        else:
            settings[recipe] = dict(entry["choices"])
    yield settings


def with_recipes(
    text: str, old: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]], path: Path
) -> str:
    """`text` of params.yaml, in which each recipe has its settings, whatever it starts from.

    A recipe is written only what it does not have by then; one that starts from a tuned recipe, but
    was not tuned, follows it.
    """
    recipes: dict[str, dict[str, Any]] = {name: dict(r) for name, r in old["recipes"].items()}
    # parents first, so that what is inherited then is known
    for recipe in sorted(settings, key=lambda name: _depth(name, recipes)):
        if recipe not in recipes:
            raise StudyError(
                f"{path}: recipes.{recipe}: not there any more; run `dvc repro "
                f"{FOLDER / 'dvc.yaml'}` again"
            )
        has = merged({RECIPE: recipe}, recipes)
        for key, value in settings[recipe].items():
            if has.get(key, DEFAULTS[key]) != value:
                text = _with_value(text, recipe, key, value, path)
                recipes[recipe][key] = value
    expected = {**old, "recipes": recipes}
    raw = YAML(typ="safe").load(text)
    if raw != expected:
        raise StudyError(
            f"{path}: can't write into recipes in this layout; take the settings from "
            f"{FOLDER / 'best.yaml'} by hand"
        )
    parse(raw, source=str(path))
    return text


def changed_cells(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of the cells that are others than before."""
    old, new = (parse(raw).cells for raw in (before, after))
    return [name for name in new if new[name].identity() != old[name].identity()]


def _depth(recipe: str, recipes: Mapping[str, Mapping[str, Any]]) -> int:
    parent = recipes.get(recipe, {}).get(RECIPE)
    return 0 if parent is None else 1 + _depth(parent, recipes)


def _with_value(text: str, recipe: str, key: str, value: Any, path: Path) -> str:
    """`text` with `key: value` in a recipe: in place of its value, or behind its last one."""
    entry = YAML().load(text)["recipes"][recipe]
    lines = text.splitlines(keepends=True)
    if not isinstance(entry, CommentedMap) or not entry:
        raise StudyError(f"{path}: recipes.{recipe}: empty; write {key}: {_written(value)} there")
    if key in entry:
        row, column = entry.lc.value(key)
        old = SCALAR.match(lines[row], column)
        if old is None:
            raise StudyError(f"{path}: recipes.{recipe}.{key}: write {_written(value)} there")
        lines[row] = lines[row][:column] + _written(value) + lines[row][old.end() :]
        return "".join(lines)
    scalars = [name for name in entry if not isinstance(entry[name], list | dict)]
    if not scalars:
        raise StudyError(f"{path}: recipes.{recipe}: write {key}: {_written(value)} there")
    row, column = entry.lc.value(scalars[-1])
    if not entry.fa.flow_style():
        indent = " " * entry.lc.key(scalars[-1])[1]
        if not lines[row].endswith("\n"):
            lines[row] += "\n"
        lines.insert(row + 1, f"{indent}{key}: {_written(value)}\n")
        return "".join(lines)
    last = SCALAR.match(lines[row], column)
    if last is None:
        raise StudyError(f"{path}: recipes.{recipe}: write {key}: {_written(value)} there")
    lines[row] = f"{lines[row][: last.end()]}, {key}: {_written(value)}{lines[row][last.end() :]}"
    return "".join(lines)


def _written(value: Any) -> str:
    """A number, word or truth value as YAML has it; 8.2e-3 for numbers that are small."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        mantissa, _, exponent = f"{value:e}".partition("e")
        small = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
        return small if value < 0.01 and float(small) == value else repr(value)
    return str(value)
