"""A validator for the keywords of JSON Schema 2020-12 that the published schemas use."""

import re
from collections.abc import Iterator
from typing import Any

TYPES = {"object": dict, "array": list, "string": str, "number": int | float, "integer": int,
         "boolean": bool, "null": type(None)}  # fmt: skip
ANNOTATIONS = {"$schema", "$defs", "title", "description", "default", "discriminator"}
KNOWN = ANNOTATIONS | {
    "$ref", "type", "enum", "const", "anyOf", "oneOf", "not", "properties", "required",
    "additionalProperties", "patternProperties", "propertyNames", "minProperties", "maxProperties",
    "items", "minItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern",
    "minLength", "maxLength",
}  # fmt: skip


def problems(schema: Any, value: Any, root: Any, where: str = "") -> Iterator[str]:
    """`place: keyword` for each rule that `value` breaks; AssertionError for an unknown keyword.

    References are looked up in `root`, those to other files in its `files`.
    """
    if isinstance(schema, bool):
        if not schema:
            yield f"{where}: false"
        return
    assert schema.keys() <= KNOWN, schema.keys() - KNOWN
    if "$ref" in schema:
        file, _, pointer = schema["$ref"].partition("#/")
        home = {**root["files"][file], "files": root["files"]} if file else root
        target = home
        for part in pointer.split("/"):
            target = target[part]
        yield from problems(target, value, home, where)
    for keyword, holds in _rules(schema, value, root).items():
        if not holds:
            yield f"{where}: {keyword}"
    if isinstance(value, dict):
        yield from _properties(schema, value, root, where)
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from problems(schema.get("items", True), item, root, f"{where}.{number}")


def _rules(schema: Any, value: Any, root: Any) -> dict[str, bool]:
    def fitting(keyword: str) -> int:
        return sum(not list(problems(part, value, root)) for part in schema[keyword])

    rules = {
        "type": lambda: _is(value, schema["type"]),
        "enum": lambda: value in schema["enum"],
        "const": lambda: value == schema["const"],
        "anyOf": lambda: fitting("anyOf") >= 1,
        "oneOf": lambda: fitting("oneOf") == 1,
        "not": lambda: bool(list(problems(schema["not"], value, root))),
    }
    if isinstance(value, str):
        rules |= {
            "pattern": lambda: re.search(schema["pattern"], value) is not None,
            "minLength": lambda: len(value) >= schema["minLength"],
            "maxLength": lambda: len(value) <= schema["maxLength"],
        }
    elif _is(value, "number"):
        rules |= {
            "minimum": lambda: value >= schema["minimum"],
            "maximum": lambda: value <= schema["maximum"],
            "exclusiveMinimum": lambda: value > schema["exclusiveMinimum"],
            "exclusiveMaximum": lambda: value < schema["exclusiveMaximum"],
        }
    elif isinstance(value, list):
        rules |= {"minItems": lambda: len(value) >= schema["minItems"]}
    elif isinstance(value, dict):
        rules |= {
            "required": lambda: set(schema["required"]) <= value.keys(),
            "minProperties": lambda: len(value) >= schema["minProperties"],
            "maxProperties": lambda: len(value) <= schema["maxProperties"],
        }
    return {keyword: rule() for keyword, rule in rules.items() if keyword in schema}


def _is(value: Any, types: str | list[str]) -> bool:
    if isinstance(types, list):
        return any(_is(value, one) for one in types)
    if isinstance(value, bool):
        return types == "boolean"
    return isinstance(value, TYPES[types])


def _properties(schema: Any, value: dict[str, Any], root: Any, where: str) -> Iterator[str]:
    patterns = schema.get("patternProperties", {})
    for name, inner in value.items():
        place = f"{where}.{name}".removeprefix(".")
        yield from problems(schema.get("propertyNames", True), name, root, place)
        rules = [rule for pattern, rule in patterns.items() if re.search(pattern, name)]
        if name in schema.get("properties", {}):
            rules.append(schema["properties"][name])
        for rule in rules or [schema.get("additionalProperties", True)]:
            yield from problems(rule, inner, root, place)
