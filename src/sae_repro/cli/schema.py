"""JSON Schemas of params.yaml and tune/params.yaml, for editors that complete and check YAML.

A cell is described as it is written: beside its recipe, it has any of a cell's keys. What one value
cannot show, `sae-repro check` finds: rules between keys, names of recipes, hooks, pinned files.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from sae_repro.files import write_json
from sae_repro.params import Study, Tune
from sae_repro.params.axes import AXES
from sae_repro.params.recipes import PartialCell
from sae_repro.params.tune import SEARCHABLE, TARGET_L0, Range, Values

FILES = {"params.schema.json": "params.yaml", "tune.schema.json": "tune/params.yaml"}
DOCUMENTATION = ("description", "default")
GROUPED_DIGITS = r"^[0-9]{1,3}(_[0-9]{3})+$"
"""1_000_000 is a number to `sae-repro`, and a string to editors: YAML 1.2 has no such numbers."""


class _Generator(GenerateJsonSchema):
    """Pydantic's generator: no titles, digits in groups, and no names but those of a pattern."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return _or_grouped_digits(super().int_schema(schema))

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return _or_grouped_digits(super().float_schema(schema))

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        if "type" not in inner:
            return super().nullable_schema(schema)
        # one schema instead of two by anyOf: editors then say which rule a value breaks
        types = inner["type"] if isinstance(inner["type"], list) else [inner["type"]]
        enum = {"enum": [*inner["enum"], None]} if "enum" in inner else {}
        return {**inner, **enum, "type": [*types, "null"]}

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        json_schema = super().dict_schema(schema)
        if "patternProperties" in json_schema:
            json_schema["additionalProperties"] = False
        return json_schema


def _or_grouped_digits(number: JsonSchemaValue) -> JsonSchemaValue:
    return {**number, "type": [number["type"], "string"], "pattern": GROUPED_DIGITS}


def schemas() -> dict[str, JsonSchemaValue]:
    """The schema of each of `FILES`, by its own file name."""
    study = _as_written(Study.model_json_schema(schema_generator=_Generator))
    return {
        name: {"$schema": _Generator.schema_dialect, "title": FILES[name], **schema}
        for name, schema in zip(FILES, (study, _tune_schema(study)), strict=True)
    }


def _as_written(study: JsonSchemaValue) -> JsonSchemaValue:
    """The schema of params.yaml before its cells are made whole with their recipes."""
    del study["$defs"]["Cell"]
    cells = study["properties"]["cells"]["patternProperties"]
    cells.update({name: {"$ref": f"#/$defs/{PartialCell.__name__}"} for name in cells})
    return study


def _tune_schema(study: JsonSchemaValue) -> JsonSchemaValue:
    """The schema of tune/params.yaml: recipes have a cell's choices, or ranges of them."""
    tune = Tune.model_json_schema(schema_generator=_Generator)
    choices = {"$ref": "#/$defs/Choices"}
    tune["properties"]["all"] = {**_documented(tune["properties"]["all"]), **choices}
    recipes = tune["properties"]["recipes"]["patternProperties"]
    recipes.update(dict.fromkeys(recipes, choices))
    definitions = tune.pop("$defs") | {
        "Choices": _choices_schema(study["$defs"][PartialCell.__name__]["properties"]),
        "Range": Range.model_json_schema(schema_generator=_Generator),
        "Values": Values.model_json_schema(schema_generator=_Generator),
    }
    return {
        "type": "object",
        "properties": {"tune": tune},
        "required": ["tune"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _choices_schema(cell: Mapping[str, JsonSchemaValue]) -> JsonSchemaValue:
    l0 = {**cell["target_l0"], "description": "k with topk and batchtopk, else target_l0"}
    fixed = {**cell, TARGET_L0: l0, **{axis: _elsewhere(axis, cell[axis]) for axis in AXES}}
    searched = [{"$ref": "#/$defs/Range"}, {"$ref": "#/$defs/Values"}]
    return {
        "type": "object",
        "properties": {
            name: {**_documented(fixed[name]), "anyOf": [_undocumented(fixed[name]), *searched]}
            for name in sorted(SEARCHABLE)
        },
        "additionalProperties": False,
    }


def _elsewhere(axis: str, schema: JsonSchemaValue) -> JsonSchemaValue:
    """The values of an axis by reference: they and their meanings stand in one file alone."""
    return {
        "description": schema["description"].partition(":")[0],
        "default": schema["default"],
        "$ref": f"params.schema.json#/$defs/{PartialCell.__name__}/properties/{axis}",
    }


def _documented(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {key: value for key, value in schema.items() if key in DOCUMENTATION}


def _undocumented(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {key: value for key, value in schema.items() if key not in DOCUMENTATION}


def write_schemas(folder: Path) -> Iterator[str]:
    """Write both into `folder`; lines to show."""
    for name, schema in schemas().items():
        write_json(folder / name, schema)
        yield f"{folder / name}: schema of {FILES[name]}"


def modeline(schema: str) -> str:
    """The comment by which a YAML file names its schema, a path relative to the file."""
    return f"yaml-language-server: $schema={schema}"
