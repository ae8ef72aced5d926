"""Values checked against a schema: one line per fault, `key = value: what is allowed`."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sae_repro.errors import UNPRINTABLE, StudyError, did_you_mean, shown
from sae_repro.params.base import ONE, SEVERAL, S


def check_section(schema: type[S], raw: Any, *, source: str = "params.yaml", within: str = "") -> S:
    """`raw` as a section of type `schema`; `within` is its key, for the errors' first word."""
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        details = error.errors(include_url=False)
        lines = [
            line
            for detail in details[:FAULTS]
            if not _follows(detail, details)
            for line in _explain(detail, within, schema)
        ]
        more = max(len(lines) - FAULTS, 0) + max(len(details) - FAULTS, 0)
        lines[FAULTS:] = [f"{more} more faults"] if more else []
        raise StudyError("\n".join(f"{source}: {line}" for line in lines)) from None


BELOW = "below"
"""Type of an error whose message's lines begin with what is below the place of the error."""

FAULTS = 100
"""Faults that are listed; what is wrong with a long generated file shows in fewer."""

ADDED = {
    "root": ".",
    "seed": "0",
    "compute": "{bits: portable}",
    "recipes": "{}",
    "judge": "{}",
    "control": "{}",
}
"""What a study that needs nothing special may say of the keys that dvc.yaml reads."""

_KINDS = {"stories", "files", "hub", "activations", "train", "local", "gguf", "none"}


def _explain(detail: ErrorDetails, within: str, schema: type[BaseModel]) -> list[str]:
    """One fault as `key = value: what is allowed`."""
    parts = [shown(part) for part in detail["loc"] if part != "[key]"]
    # pydantic puts the chosen variant's tag into the path: `source.files.columns`
    path = [
        part
        for i, part in enumerate(parts)
        if part not in (ONE, SEVERAL) and not (i and parts[i - 1] == "source" and part in _KINDS)
    ]
    key = ".".join([within, *path] if within else path)
    value, message = detail["input"], detail["msg"]
    kind = detail["type"]
    if path and path[-1] in ("int", "bool") and kind in ("int_type", "bool_type"):
        return []  # one of several types that a value may have: the last one's line says it
    if path and path[-1] in ("float", "constrained-str") and kind in ("float_type", "string_type"):
        key = ".".join([within, *path[:-1]])
    if kind == "value_error":
        text = message.removeprefix("Value error, ")
        return [f"{key}: {line}" if key else line for line in text.split("\n")]
    if kind == BELOW:
        return [f"{key}.{line}" for line in message.split("\n")]
    if kind == "missing" and key in ADDED:
        return [f"{key}: missing, and the stages of dvc.yaml read it; add `{key}: {ADDED[key]}`"]
    if kind == "missing":
        return [f"{key}: missing, and it has no default"]
    if kind == "extra_forbidden":
        advice = did_you_mean(path[-1], _keys_at(schema, path[:-1]))
        all_keys = "; `sae-repro check --schema` lists all"
        return [f"{key} = {shown(value)}: unknown key{advice or all_keys}"]
    if kind == "union_tag_invalid":
        context = detail.get("ctx", {})
        return [f"{key}.kind = {shown(context['tag'])}: allowed are {context['expected_tags']}"]
    if kind == "union_tag_not_found":
        return [f"{key}.kind: missing, it says which kind of {key.split('.')[0]} this is"]
    if kind == "model_type" and len(path) == 2:
        return [f"{key} = {shown(value)}: must be a mapping of a cell's choices, {{…}}"]
    if kind == "string_pattern_mismatch" and UNPRINTABLE in message:
        return [f"{key} = {shown(value)}: holds a character that no line can show; delete it"]
    message = message.replace("Tuple should", "List should").replace("Dictionary", "Mapping")
    for pydantic, yaml in (("a valid tuple", "a list"), ("a valid dictionary.*", "a mapping")):
        message = re.sub(pydantic, yaml, message)
    allowed = message.removeprefix("Input should be ").replace("Input should have", "allowed:")
    if allowed == message:
        return [f"{key} = {shown(value)}: {message}"]
    advice = _as_number(value) if kind in ("int_type", "float_type") else ""
    if kind == "string_type" and isinstance(value, int | float):
        advice = ": put it in quotes"
    # text of digits looks like the number that it is not
    quoted = f'"{shown(value)}"' if advice and isinstance(value, str) else shown(value)
    return [f"{key} = {quoted}: must be {allowed}{advice}"]


def _follows(detail: ErrorDetails, details: Iterable[ErrorDetails]) -> bool:
    """Whether a list is too short only because its faulty items do not count."""
    where = detail["loc"]
    return detail["type"] == "too_short" and any(
        other["loc"][: len(where)] == where and len(other["loc"]) > len(where) for other in details
    )


def _as_number(value: Any) -> str:
    """Advice where a number is spelled as something else; empty where none is meant."""
    if isinstance(value, bool):
        return ", not true or false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return f": write {int(value)}"
    if isinstance(value, str) and value.isascii():
        try:
            float(value)
        except ValueError:
            return ""
        return ", and this is text: delete the quotes"
    return ""


def _keys_at(schema: type[BaseModel], path: Iterable[str]) -> Iterator[str]:
    """The keys that are allowed at `path` below a section, those of every variant."""
    models = [schema]
    for part in path:
        inner = []
        for model in models:
            for name, field in model.model_fields.items():
                if part == (field.alias or name):
                    inner += list(_models_in(field.annotation))
        models = inner or models  # below a name that the user chose: `cells.<name>`
    for model in models:
        yield from (field.alias or name for name, field in model.model_fields.items())


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections within a type, such as those of a union or of a mapping's values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
