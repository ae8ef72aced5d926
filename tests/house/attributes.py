"""The attributes of parameter sections that a package uses, resolved by mypy's types.

A word in the source proves nothing: `.name` may be anybody's. Here an attribute is one of a section
only where mypy takes what stands before the dot for an instance of that section.

    python attributes.py FOLDER PYPROJECT SECTION STUDY     prints [[attribute, place], …] as JSON

mypy runs in a process of its own, which returns its gigabyte at once when it ends.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mypy.build import BuildResult, build
from mypy.config_parser import parse_config_file
from mypy.find_sources import create_source_list
from mypy.nodes import (
    AssignmentStmt,
    CallExpr,
    ClassDef,
    Decorator,
    Expression,
    FuncDef,
    MemberExpr,
    MypyFile,
    NameExpr,
    Node,
    OverloadedFuncDef,
    StrExpr,
    TypeInfo,
)
from mypy.options import Options
from mypy.server.subexpr import get_subexpressions
from mypy.types import Instance, Type, TypeVarType, UnionType, get_proper_type

FOLLOWED = (
    *sys.stdlib_module_names,
    *("_typeshed", "typing_extensions", "pydantic", "pydantic_core", "annotated_types"),
)
"""Foreign packages whose types matter; all others are Any, or mypy reads torch for minutes."""

CONTEXT = "StageContext"
"""The class whose `section(Model, key)` and `value(key)` read params.yaml by a literal key."""

METHODS = (FuncDef, Decorator, OverloadedFuncDef)
"""Nodes of methods and properties."""


class Use(NamedTuple):
    """One use of an attribute."""

    attribute: str
    """module.Class.name, of the class that defines it"""
    place: str
    """module.Class.method where the use stands in one, else module"""


class Names(NamedTuple):
    """The full names of the classes of a schema."""

    section: str
    """the base class of all sections"""
    study: str
    """the section that is the whole of params.yaml"""


def uses(package: Path, config: Path, names: Names) -> list[Use]:
    """Every use in `package` of an attribute of a section, found in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, str(package), str(config), *names],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"mypy could not read {package}:\n{done.stdout}{done.stderr}")
    return [Use(*pair) for pair in json.loads(done.stdout)]


def live(found: Iterable[Use], apart: Iterable[str]) -> set[str]:
    """The attributes on which something outside the packages `apart` depends.

    A use inside them counts only in a method or property that is live itself. So validators, which
    only refuse, the functions that they call, and what only shows a value make nothing live.
    """
    waiting = list(found)
    inside = tuple(f"{package}." for package in apart)
    alive: set[str] = set()
    while True:
        more = {
            use.attribute
            for use in waiting
            if use.place in alive or not f"{use.place}.".startswith(inside)
        } - alive
        if not more:
            return alive
        alive |= more


def collected(package: Path, config: Path, names: Names) -> Iterator[Use]:
    """Every use in `package` of an attribute of a section."""
    options = _options(config)
    sources = create_source_list([str(package)], options)
    result = build(sources, options)
    for source in sources:
        for place, node in _places(result.files[source.module]):
            for expression in get_subexpressions(node):
                for attribute in _attributes(expression, result, names):
                    yield Use(attribute, place)


def _options(config: Path) -> Options:
    options = Options()
    parse_config_file(options, lambda: None, str(config), sys.stderr, sys.stderr)
    options.check_untyped_defs = True
    options.export_types = options.preserve_asts = True
    options.incremental = False
    options.follow_imports, options.follow_imports_for_stubs = "skip", True
    for name in FOLLOWED:
        options.per_module_options[f"{name}.*"] = {"follow_imports": "silent"}
    return options


def _places(tree: MypyFile) -> Iterator[tuple[str, Node]]:
    """The parts of a module, each with the name of its method, or of the module."""
    for statement in tree.defs:
        if not isinstance(statement, ClassDef):
            yield tree.fullname, statement
            continue
        for part in statement.defs.body:
            if isinstance(part, METHODS):
                yield f"{statement.fullname}.{part.name}", part
            else:
                yield tree.fullname, part


def _attributes(expression: Expression, result: BuildResult, names: Names) -> Iterator[str]:
    """The attributes of sections that an expression itself reads, its parts apart.

    Sections are frozen, so no use of their fields is an assignment.
    """
    if isinstance(expression, MemberExpr):
        for info in _classes(result.types.get(expression.expr)):
            if info.has_base(names.section) and (owner := _owner(info, expression.name)):
                yield f"{owner}.{expression.name}"
    if isinstance(expression, CallExpr) and isinstance(expression.callee, MemberExpr):
        key = expression.args[-1] if expression.args else None
        for info in _classes(result.types.get(expression.callee.expr)):
            if info.name == CONTEXT and isinstance(key, StrExpr):
                yield f"{names.study}.{key.value.partition('.')[0]}"


def _classes(kind: Type | None) -> Iterator[TypeInfo]:
    """The classes that a value of this type may be of: of a union all, of a variable its bound."""
    if kind is None:
        return
    kind = get_proper_type(kind)
    if isinstance(kind, Instance):
        yield kind.type
    elif isinstance(kind, UnionType):
        for item in kind.items:
            yield from _classes(item)
    elif isinstance(kind, TypeVarType):
        yield from _classes(kind.upper_bound)


def _owner(info: TypeInfo, name: str) -> str | None:
    """The class in whose body `name` stands; pydantic's plugin copies fields into subclasses."""
    return next((base.fullname for base in info.mro if name in _own(base)), None)


def _own(info: TypeInfo) -> set[str]:
    """The names that the body of a class defines."""
    names = set()
    for part in info.defn.defs.body:
        if isinstance(part, METHODS):
            names.add(part.name)
        elif isinstance(part, AssignmentStmt):
            names |= {target.name for target in part.lvalues if isinstance(target, NameExpr)}
    return names


if __name__ == "__main__":
    package, config, *full = sys.argv[1:]
    print(json.dumps(sorted(set(collected(Path(package), Path(config), Names(*full))))))
    sys.stdout.flush()
    os._exit(0)  # to take down a million nodes one by one takes as long as making them
