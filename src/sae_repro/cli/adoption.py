"""Adoption of trials as cells: lines added to params.yaml, every other byte left as it was."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import unified_diff
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from sae_repro.errors import StudyError
from sae_repro.files import write_text
from sae_repro.params import Cell, check_section, parse, read_yaml
from sae_repro.tune.results import Trial, trials


def adopt(
    study: Path, numbers: Sequence[int], *, pareto: bool, prefix: str, dry_run: bool
) -> Iterator[str]:
    """Make cells `<prefix>-<recipe>-<number>` of trials in the study's params.yaml; lines to show.

    Without `numbers` or `pareto`, the one best trial. StudyError where there is none, or several,
    and where a name is taken.
    """
    path = study / "params.yaml"
    old = read_yaml(path)
    parse(old, source=str(path))
    cells, notes = _new_cells(_chosen(trials(study), numbers, pareto), old["cells"], prefix)
    yield from notes
    if not cells:
        yield f"{path}: nothing to add"
        return
    before = path.read_text(encoding="utf-8")
    after = _with_cells(before, cells, path)
    _check(after, old, cells, path)
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
    yield "next: dvc repro   (the SAEs are in the store: nothing is trained again)"


def _chosen(recorded: Sequence[Trial], numbers: Sequence[int], pareto: bool) -> list[Trial]:
    best = [trial for trial in recorded if trial.best]
    if numbers:
        by_number = {trial.number: trial for trial in recorded}
        for number in numbers:
            if number not in by_number:
                raise StudyError(f"--trial {number}: tune/trials.csv has 0 … {len(recorded) - 1}")
            trial = by_number[number]
            if trial.status != "ok":
                raise StudyError(f"--trial {number}: it {trial.status}: {trial.reason}")
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
    chosen: Sequence[Trial], existing: Mapping[str, Any], prefix: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """(name → choices, notes); a trial that is a cell already is left out, with a note."""
    names = {
        str(check_section(Cell, choices, within=f"cells.{name}").identity()): name
        for name, choices in existing.items()
    }
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
            cells[name], names[identity] = dict(trial.choices), name
    return cells, notes


def _with_cells(text: str, cells: Mapping[str, dict[str, Any]], path: Path) -> str:
    """`text` with a line per cell after the last cell; nothing else moves, no comment, no space."""
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
    added += [f"{indent}{name}: {_flow(choices)}\n" for name, choices in cells.items()]
    return "".join([*lines[:end], *added, *lines[end:]])


def _flow(choices: Mapping[str, Any]) -> str:
    mapping = CommentedMap(choices)
    mapping.fa.set_flow_style()
    yaml = YAML()
    yaml.width = 10_000
    text = StringIO()
    yaml.dump(mapping, text)
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
