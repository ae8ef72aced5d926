"""Studies that `check` accepts, from a seed: each choice of the schema, each rule kept."""

import random
import types
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sae_repro.errors import StudyError
from sae_repro.params import Cell, Study, parse
from sae_repro.params.axes import AXES, readers

LEFT_OUT = frozenset({"import", "sha256", "baseline", "hook", "target_hook", "skip", "device",
                      "threads", "seeds", "path"})  # fmt: skip
"""Keys whose values need other files, hooks or hardware, or that `random_cell` sets itself."""

FLOATS = (1e-12, 1e-6, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0, 2.0, 10.0, 1e3)
INTEGERS = (0, 1, 2, 3, 5, 8, 17, 64, 100, 300, 1000, 10_000)


def random_study(rng: random.Random, base: Mapping[str, Any], cells: int = 3) -> dict[str, Any]:
    """`base`, a small valid study, with some of its sections' values and all of its cells changed.

    Sizes stay those of `base` where it states them, so that what is quick stays so.
    """
    study = deepcopy(dict(base))
    parse(study)
    for name in ("train", "evaluate", "judge", "compare", "report"):
        section = Study.model_fields[name].annotation
        stated = study[name]
        for key, field in _fields(section):
            if key not in stated and rng.random() < 0.2:
                study[name] = {**study[name], key: _value(rng, field)}
                if not accepted(study):
                    del study[name][key]
    study["seed"] = rng.choice([0, 1, 2**32, 2**63 - 1])
    found: dict[str, Any] = {}
    if rng.random() < 0.2:
        found["basis"] = {"baseline": rng.choice(["neurons", "pca"])}
    while len(found) < cells:
        cell = random_cell(rng)
        if accepted({**study, "cells": {**found, f"c{len(found)}": cell}}):
            found[f"c{len(found)}"] = cell
    return {**study, "cells": found}


def random_cell(rng: random.Random) -> dict[str, Any]:
    """A cell with random choices on each axis, and of the keys that these read; often refused."""
    axes = {key: field for key, field in _fields(Cell) if key in AXES}
    cell: dict[str, Any] = {key: _value(rng, field) for key, field in axes.items()}
    cell["expansion"] = rng.choice([0.5, 1, 2, 4])
    for key, field in _fields(Cell):
        reads = readers(_name(key))
        read = reads is None or cell.get(reads[0]) in reads[1]
        needed = key in ("k", "lambda", "resample_every", "target_l0")
        if key not in cell and read and rng.random() < (1 if needed else 0.15):
            cell[key] = _value(rng, field)
    return {key: value for key, value in cell.items() if value is not None or key == "grad_clip"}


def _name(key: str) -> str:
    return next(n for n, field in Cell.model_fields.items() if (field.alias or n) == key)


def _fields(section: Any) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        key = field.alias or name
        if key not in LEFT_OUT and not any(_is_section(part) for part in _parts(field.annotation)):
            yield key, field


def _is_section(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def _parts(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        yield from get_args(annotation)
    else:
        yield annotation


def _value(rng: random.Random, field: FieldInfo) -> Any:
    return _of_type(rng, rng.choice(list(_parts(field.annotation))))


def _of_type(rng: random.Random, annotation: Any) -> Any:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _of_type(rng, inner[0])
    if origin is Literal:
        return rng.choice(inner)
    if origin is tuple:
        items = [_of_type(rng, inner[0]) for _ in range(rng.choice([1, 2, 3]))]
        return list(dict.fromkeys(items))
    if annotation is bool:
        return rng.random() < 0.5
    if annotation is int:
        return rng.choice(INTEGERS)
    return rng.choice(FLOATS) if annotation is float else None


def accepted(study: dict[str, Any]) -> bool:
    """Whether `check` has nothing against it."""
    try:
        parse(study)
    except StudyError:
        return False
    return True
