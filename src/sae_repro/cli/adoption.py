"""Adoption of a search's results: cells or values added to params.yaml, all else left as it was."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import unified_diff
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from sae_repro.cli.adopted_recipes import changed_cells, tuned_recipes, with_recipes
from sae_repro.cli.studies import WIDTH
from sae_repro.errors import StudyError
from sae_repro.files import write_text
from sae_repro.params import Cell, check_section, parse, read_yaml
from sae_repro.params.recipes import RECIPE, merged
from sae_repro.tune.results import Trial, trials
from sae_repro.tune.space import FOLDER


def adopt(
    study: Path, numbers: Sequence[int], *, pareto: bool, prefix: str, dry_run: bool
) -> Iterator[str]:
    """Make cells `<prefix>-<recipe>-<number>` of trials in the study's params.yaml; lines to show.

    Without `numbers` or `pareto`, the one best trial; of several studies, instead of cells, the
    settings that are better, into the recipes. StudyError where there is no best trial, or several,
    and where a name is taken.
    """
    path = study / "params.yaml"
    old = read_yaml(path)
    if not numbers and not pareto and _several(study):
        yield from _adopt_settings(study, path, old, dry_run=dry_run)
        return
    existing = parse(old, source=str(path)).cells
    cells, notes = _new_cells(
        _chosen(trials(study), numbers, pareto), existing, old["recipes"], prefix
    )
    yield from notes
    if not cells:
        yield f"{path}: nothing to add"
        return
    before = path.read_text(encoding="utf-8")
    after = _with_cells(before, cells, path)
    _check(after, old, cells, path)
    yield from _written_over(path, before, after, dry_run=dry_run)
    if not dry_run:
        yield "next: dvc repro   (the SAEs are in the store: nothing is trained again)"


def _several(study: Path) -> bool:
    """Whether the search had several studies, whose result is settings of recipes."""
    trials(study)  # that the record is there, and whole
    return "recipes" in read_yaml(study / FOLDER / "best.yaml")


def _adopt_settings(
    study: Path, path: Path, old: dict[str, Any], *, dry_run: bool
) -> Iterator[str]:
    settings: dict[str, dict[str, Any]] = {}
    for found in tuned_recipes(study):
        if isinstance(found, str):
            yield found
        else:
            settings = found
    before = path.read_text(encoding="utf-8")
    after = with_recipes(before, old, settings, path)
    if before == after:
        yield f"{path}: nothing to change"
        return
    yield from _written_over(path, before, after, dry_run=dry_run)
    cells = changed_cells(old, YAML(typ="safe").load(after))
    yield f"cells that change: {', '.join(cells) or 'none'}"
    if not dry_run:
        yield "next: dvc repro   (trains these cells)"


def _written_over(path: Path, before: str, after: str, *, dry_run: bool) -> Iterator[str]:
    """Lines of the diff; the file is written unless it is a dry run."""
    yield from (
        line.rstrip("\n")
        for line in unified_diff(
            before.splitlines(keepends=True),
            after.splitlines(keepends=True),
            fromfile=str(path),
            tofile=str(path),
            n=1,
        )
    )
    if dry_run:
        yield "dry run: nothing was written"
        return
    write_text(path, after)


def _chosen(recorded: Sequence[Trial], numbers: Sequence[int], pareto: bool) -> list[Trial]:
    best = [trial for trial in recorded if trial.best]
    if numbers:
        by_number = {trial.number: trial for trial in recorded}
        for number in numbers:
            if number not in by_number:
                raise StudyError(f"--trial {number}: tune/trials.csv has 0 … {len(recorded) - 1}")
            trial = by_number[number]
            if trial.status != "ok":
                raise StudyError(f"--trial {number}: {trial.status}: {trial.reason}")
        return [by_number[number] for number in dict.fromkeys(numbers)]
    if not best:
        raise StudyError("tune/trials.csv: no trial finished and held all constraints")
    if len(best) > 1 and not pareto:
        raise StudyError(
            f"the front has {len(best)} trials: --pareto for all, or --trial with one of "
            + ", ".join(str(trial.number) for trial in best)
        )
    return best


def _new_cells(
    chosen: Sequence[Trial], existing: Mapping[str, Cell], recipes: Mapping[str, Any], prefix: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """(name → its entry, notes); a trial that is a cell already is left out, with a note."""
    names = {str(cell.identity()): name for name, cell in existing.items()}
    cells: dict[str, dict[str, Any]] = {}
    notes = []
    for trial in chosen:
        name = f"{prefix}-{trial.recipe}-{trial.number}"
        identity = str(check_section(Cell, trial.choices, within=name).identity())
        if identity in names:
            notes.append(f"trial {trial.number} is the cell {names[identity]} already")
        elif name in existing:
            raise StudyError(
                f"params.yaml: cells.{name} exists already and is another cell; choose another "
                "--prefix"
            )
        else:
            cells[name], names[identity] = _shortest(trial.choices, recipes), name
    return cells, notes


def _shortest(choices: Mapping[str, Any], recipes: Mapping[str, Any]) -> dict[str, Any]:
    """The same cell by the recipe that leaves it the fewest keys of its own; or by none."""
    cell = Cell.model_validate(choices).identity()
    entries = [dict(choices)]
    for recipe in recipes:
        shared = merged({RECIPE: recipe}, recipes)
        own = {k: v for k, v in choices.items() if k not in shared or shared[k] != v}
        entry = {RECIPE: recipe, **own}
        with suppress(ValidationError):  # a recipe that sets what this cell must not have
            if Cell.model_validate(merged(entry, recipes)).identity() == cell:
                entries.append(entry)
    return min(entries, key=len)


def _with_cells(text: str, cells: Mapping[str, dict[str, Any]], path: Path) -> str:
    """`text` with the cells after its last cell; nothing else moves, no comment, no space."""
    raw = YAML().load(text)
    if raw["cells"].fa.flow_style():
        raise StudyError(f"{path}: cells is one pair of braces; write a cell per line")
    lines = text.splitlines(keepends=True)
    start = raw.lc.key("cells")[0]
    end = min((raw.lc.key(k)[0] for k in raw if raw.lc.key(k)[0] > start), default=len(lines))
    while re.match(r"\s*(#|$)", lines[end - 1]):
        end -= 1
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    indent = " " * raw["cells"].lc.col
    added = [f"{indent}# from tune/trials.csv\n"]
    for name, choices in cells.items():
        added += [indent + line + "\n" for line in _written(name, choices, WIDTH - len(indent))]
    return "".join([*lines[:end], *added, *lines[end:]])


def _written(name: str, choices: Mapping[str, Any], width: int) -> list[str]:
    """The cell in one line, or in one per choice where it is wider, as DVC would write it."""
    mapping = CommentedMap(choices)
    mapping.fa.set_flow_style()
    line = _dumped({name: mapping})
    if len(line) > width:
        mapping.fa.set_block_style()
        return _dumped({name: mapping}).splitlines()
    return [line]


def _dumped(value: Mapping[str, Any]) -> str:
    yaml = YAML()
    yaml.width = 10_000
    text = StringIO()
    yaml.dump(value, text)
    return text.getvalue().strip()


def _check(text: str, old: Mapping[str, Any], cells: Mapping[str, Any], path: Path) -> None:
    """The new text is the old study with the new cells, to the bit, and valid."""
    raw = YAML(typ="safe").load(text)
    expected = {**old, "cells": {**old["cells"], **cells}}
    if repr(raw) != repr(expected):
        raise StudyError(
            f"{path}: can't add cells in this layout; add those of tune/best.yaml by hand"
        )
    parse(raw, source=str(path))
