"""A knob that nothing reads does not exist; one without a description can't be turned."""

import ast
import importlib
import inspect
import pkgutil
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

import sae_repro
from sae_repro import params
from sae_repro.params import Section, Study

from .attributes import Names, Use, live, uses

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "pyproject.toml"
PACKAGE = Path(sae_repro.__file__).parent

ARBITRARY = ("value", "name", "rows", "path", "seed2", "mean",
             "index", "size", "key", "label", "width", "shape")  # fmt: skip
"""Attributes of many things here; as fields of sections, nothing would read them."""


def sections() -> list[type[Section]]:
    """Every section of the schema."""
    for module in pkgutil.walk_packages(params.__path__, f"{params.__name__}."):
        importlib.import_module(module.name)
    found = dict.fromkeys(_subclasses(Section))  # a section that joins several is met several times
    return [s for s in found if s.__module__.startswith(f"{params.__name__}.")]


def _subclasses(base: type[Section]) -> Iterator[type[Section]]:
    for child in base.__subclasses__():
        yield child
        yield from _subclasses(child)


def knobs() -> dict[tuple[str, str], str]:
    """(section, field) → full name; no fields that can hold but one value, which tag a variant."""
    return {
        (section.__name__, name): _full_name(section, name)
        for section in sections()
        for name, field in section.model_fields.items()
        if not _is_tag(field.annotation)
    }


def _full_name(section: type[Section], name: str) -> str:
    owner = next(c for c in section.__mro__ if name in inspect.get_annotations(c))
    return f"{_called(owner)}.{name}"


def _called(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_tag(annotation: Any) -> bool:
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def _holds_described_section(annotation: Any) -> bool:
    """Whether a section with a docstring, which the reference prints, is in the annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return bool(annotation.__doc__)
    return any(_holds_described_section(part) for part in get_args(annotation))


def commands() -> set[str]:
    """Modules of the command line, which shows parameters but decides no number."""
    scripts = tomllib.loads(CONFIG.read_text())["project"]["scripts"]
    return {target.partition(":")[0] for target in scripts.values()}


def read_in(package: Path) -> set[str]:
    """Full names of what the sources in `package` read of the sections."""
    found = uses(package, CONFIG, Names(_called(Section), _called(Study)))
    return live(found, {params.__name__, *commands()})


@pytest.fixture(scope="module")
def read() -> set[str]:
    return read_in(PACKAGE)


def test_every_section_of_a_study_is_found() -> None:
    study = params.load(ROOT / "params.yaml")
    parts = {type(part) for _, part in study if isinstance(part, Section)}
    assert {Study, *parts} <= set(sections())
    names = [section.__name__ for section in sections()]
    assert len(set(names)) == len(names), "knobs are told apart by their section's name"


def test_every_knob_is_described() -> None:
    without = [
        f"{section.__name__}.{name}"
        for section in sections()
        for name, field in section.model_fields.items()
        if not (
            field.description
            or _is_tag(field.annotation)
            or _holds_described_section(field.annotation)
        )
    ]
    assert not without, f"nothing describes {', '.join(without)}"


def test_every_knob_is_read(read: set[str]) -> None:
    unread = [".".join(knob) for knob, name in knobs().items() if name not in read]
    assert not unread, f"nothing reads {', '.join(unread)}"


def test_names_that_other_things_bear_count_for_nothing(tmp_path: Path, read: set[str]) -> None:
    """`value` in a section is no knob because something somewhere has a `value`."""
    copy = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    added = {name for path in copy.rglob("*.py") for name in _add_arbitrary(copy, path)}
    assert len(added) > 6 * len(sections())
    found = read_in(copy)
    assert found & added == set()
    assert found == read


def _add_arbitrary(copy: Path, path: Path) -> Iterator[str]:
    """Give the sections defined in a copied file the fields that they lack; their full names."""
    module = ".".join((copy.name, *path.relative_to(copy).with_suffix("").parts))
    here = {s.__name__: s for s in sections() if s.__module__ == module.removesuffix(".__init__")}
    if not here:
        return
    tree = ast.parse(path.read_text())
    for part in tree.body:
        if isinstance(part, ast.ClassDef) and (section := here.get(part.name)):
            lacking = [n for n in ARBITRARY if n not in section.model_fields | vars(section)]
            part.body[1:1] = ast.parse("\n".join(f"{name}: int = 0" for name in lacking)).body
            yield from (f"{_called(section)}.{name}" for name in lacking)
    path.write_text(ast.unparse(tree))


SMALL = {
    "__init__": "",
    "params": """
from typing import Self, TypeVar
from pydantic import BaseModel, model_validator

class Section(BaseModel):
    inherited: int = 0

class Inner(Section):
    deep: int = 0

class Knobs(Section):
    read: int = 0
    unread: int = 0
    elsewhere: int = 0
    mentioned: int = 0
    shown: int = 0
    assigned_in_call: int = 0
    validated: int = 0
    ruled: int = 0
    behind_property: int = 0
    behind_two: int = 0
    behind_idle: int = 0
    in_lambda: int = 0
    in_text: int = 0
    in_untyped: int = 0
    by_variable: int = 0
    by_union: int = 0
    inner: Inner | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.validated or rule(self):
            raise ValueError
        return self

    @property
    def used(self) -> int:
        return self.behind_property + self._second()

    def _second(self) -> int:
        return self.behind_two

    @property
    def idle(self) -> int:
        return self.behind_idle

class Other(Section):
    by_union: int = 0

class Whole(Section):
    keyed: Knobs
    also_keyed: int = 0
    not_keyed: int = 0

S = TypeVar("S", bound=Section)
K = TypeVar("K", bound=Knobs)

def rule(knobs: Knobs) -> bool:
    return knobs.ruled > 0
""",
    "cli": """
from small.params import Knobs

def show(knobs: Knobs) -> None:
    print(knobs.shown)
""",
    "use": """
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from small.params import K, Knobs, Other, S

@dataclass
class Unrelated:
    elsewhere: int
    unread: int

class StageContext:
    def section(self, schema: type[S], key: str) -> S:
        return schema()
    def value(self, key: str) -> Any: ...

def run(context: StageContext, unrelated: Unrelated) -> object:
    knobs = context.section(Knobs, "keyed")
    context.value("also_keyed.more")
    first: Callable[[Knobs], int] = lambda k: k.in_lambda
    text = f"mentioned {knobs.in_text} {unrelated.elsewhere}"
    Knobs(assigned_in_call=unrelated.unread)
    return knobs.read, knobs.used, knobs.inherited, first, text, "Knobs.mentioned .not_keyed"

def deep(knobs: Knobs) -> list[int]:
    return [i.deep for i in [knobs.inner] if i is not None]

def untyped(anything):
    knobs = Knobs()
    return anything.unread, knobs.in_untyped

def bound(knobs: K) -> K:
    print(knobs.by_variable)
    return knobs

def union(either: Knobs | Other) -> int:
    return either.by_union
""",
}

SMALL_READ = {
    *("Section.inherited", "Inner.deep", "Other.by_union", "Whole.keyed", "Whole.also_keyed"),
    *("Knobs.read", "Knobs.in_lambda", "Knobs.in_text", "Knobs.in_untyped", "Knobs.by_variable"),
    *("Knobs.by_union", "Knobs.inner", "Knobs.used", "Knobs.behind_property"),
    *("Knobs._second", "Knobs.behind_two"),
}


def test_reads_are_distinguished_from_mentions(tmp_path: Path) -> None:
    """Every way to read a field counts, and no way to name it without reading."""
    package = tmp_path / "small"
    package.mkdir()
    for name, text in SMALL.items():
        (package / f"{name}.py").write_text(text)
    found = uses(package, CONFIG, Names("small.params.Section", "small.params.Whole"))
    read = live(found, ("small.params", "small.cli"))
    assert read == {f"small.params.{name}" for name in SMALL_READ}


def test_field_read_only_by_dead_code_counts_as_unread() -> None:
    """Two methods of the schema that only call one another keep nothing alive."""
    ring = [Use("p.S.a", "p.S.b"), Use("p.S.b", "p.S.a"), Use("p.S.field", "p.S.a")]
    assert live(ring, ["p"]) == set()
    assert live([*ring, Use("p.S.b", "q")], ["p"]) == {"p.S.a", "p.S.b", "p.S.field"}
    assert live([Use("p.S.field", "pq")], ["p"]) == {"p.S.field"}
