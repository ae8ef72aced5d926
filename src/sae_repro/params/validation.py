"""Values checked against a schema: one line per fault, `key = value: what is allowed`."""

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sae_repro.errors import StudyError, did_you_mean
from sae_repro.params.base import S


def check_section(schema: type[S], raw: Any, *, source: str = "params.yaml", within: str = "") -> S:
    """`raw` as a section of type `schema`; `within` is its key, for the errors' first word."""
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        lines = [line for detail in error.errors() for line in _explain(detail, within, schema)]
        raise StudyError("\n".join(f"{source}: {line}" for line in lines)) from None


BELOW = "below"
"""Type of an error whose message's lines begin with what is below the place of the error."""

_ADD = {"recipes": "{}", "compute": "{bits: portable}"}
"""What a section without settings of its own looks like; DVC wants to find it."""

_KINDS = {"stories", "files", "hub", "train", "local"}


def _explain(detail: ErrorDetails, within: str, schema: type[BaseModel]) -> list[str]:
    """One fault as `key = value: what is allowed`."""
    parts = [str(part) for part in detail["loc"] if part != "[key]"]
    # pydantic puts the chosen variant's tag into the path: `source.files.columns`
    path = [p for i, p in enumerate(parts) if not (i and parts[i - 1] == "source" and p in _KINDS)]
    key = ".".join([within, *path] if within else path)
    value, message = detail["input"], detail["msg"]
    kind = detail["type"]
    if kind == "value_error":
        text = message.removeprefix("Value error, ")
        return [f"{key}: {line}" if key else line for line in text.split("\n")]
    if kind == BELOW:
        return [f"{key}.{line}" for line in message.split("\n")]
    if kind == "missing" and key in _ADD:
        return [f"{key}: missing, and the stages of dvc.yaml read it; add `{key}: {_ADD[key]}`"]
    if kind == "missing":
        return [f"{key}: missing, and it has no default"]
    if kind == "extra_forbidden":
        advice = did_you_mean(path[-1], _keys_at(schema, path[:-1]))
        all_keys = "; `sae-repro check --schema` lists all"
        return [f"{key} = {_short(value)}: unknown key{advice or all_keys}"]
    if kind == "union_tag_invalid":
        context = detail.get("ctx", {})
        tags = context.get("expected_tags")
        return [f"{key}.kind = {context.get('tag')}: allowed are {tags}"]
    if kind == "union_tag_not_found":
        return [f"{key}.kind: missing, it says which kind of {key.split('.')[0]} this is"]
    if kind == "model_type" and len(path) == 2:
        return [f"{key} = {_short(value)}: must be a mapping of a cell's choices, {{…}}"]
    allowed = message.removeprefix("Input should be ").replace("Input should have", "allowed:")
    return [
        f"{key} = {_short(value)}: must be {allowed}"
        if allowed != message
        else f"{key} = {_short(value)}: {message}"
    ]


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


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "…"
