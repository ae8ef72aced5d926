"""Syntax of source files: code that counts, and text for people that does not."""

import ast
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.syntax import parts

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "sae_repro"
MODULES = sorted(PACKAGE.rglob("*.py"))


def code_digest(code: str | bytes | ast.Module) -> str:
    """The digest of a module."""
    if isinstance(code, ast.AST):
        code = ast.unparse(code)
    (part,) = parts(code if isinstance(code, bytes) else code.encode(), "sae_repro.x", False)
    return part.digest


CODE = '''
"""A module."""
from typing import Annotated, Literal

from pydantic import BaseModel, Field

RATE = 1e-3


class Section(BaseModel):
    """A section."""

    k: int = Field(default=4, ge=1, description="How many.")
    """Which is how many."""
    kind: Annotated[Literal["a"], Field(description="Which.")] = "a"


def scale(x, *, by=2.0):
    """Scale."""
    if x > 1 and x not in (3, None):
        return {"y": f"{x * by:.2f}", **{}}
    raise ValueError("negative")


class Fault(Exception):
    """Bad."""
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""\n', ""),
        ('"""Scale."""', '"""Multiply\n\n    by."""'),
        ('"""Which is how many."""', ""),
        ('"""Bad."""', "pass"),
        ("RATE = 1e-3", "RATE = .001  # of learning"),
        ("x * by", "x*by"),
        ('"negative"', "(\n        'nega'  # so\n        'tive')"),
        ("How many.", "The number of latents."),
        (', description="How many."', ""),
        ('Field(description="Which.")', "Field(description='a' + 'b')"),
    ],
)
def test_text_for_people_changes_nothing(old: str, new: str) -> None:
    assert CODE.count(old) == 1
    assert code_digest(CODE.replace(old, new)) == code_digest(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1e-3", "1.0000001e-3"),
        ("2.0", "2"),
        ("2.0", "None"),
        ("=2.0", ""),
        ("x * by", "x / by"),
        ("x * by", "by * x"),
        (":.2f", ":.3f"),
        ("by:.2f", "by!r:.2f"),
        ("> 1", ">= 1"),
        ("not in", "in"),
        ("None)", "False)"),
        ("None)", "'None')"),
        ('Literal["a"]', 'Literal["b"]'),
        ("ge=1", "gt=1"),
        ("default=4", "default=5"),
        ("negative", "Negative"),
        ("class Section(BaseModel)", "class Section(BaseModel, frozen=True)"),
        ("def scale", "@cache\ndef scale"),
        ("def scale", "async def scale"),
        ("RATE = 1e-3", "RATE: float = 1e-3"),
        ("RATE = 1e-3", "import math\nRATE = 1e-3"),
        ("RATE = 1e-3", "RATE = 1e-3\nOTHER = 1"),
        ("BaseModel, Field", "BaseModel, FieldInfo as Field"),
        (", **{}", ""),
        ("RATE", "RATES"),
        ("Field(default=4", "field(default=4"),
    ],
)
def test_changed_code_changes_the_digest(old: str, new: str) -> None:
    assert CODE.count(old) == 1
    assert code_digest(CODE.replace(old, new)) != code_digest(CODE)


def test_imports_for_types_only_do_not_count() -> None:
    before = "from typing import TYPE_CHECKING"
    only_types = f"{before}\nif TYPE_CHECKING:\n    from sae_repro.b import B\n"
    assert code_digest(only_types) == code_digest(before)
    assert code_digest(f"{only_types}else:\n    B = 1") == code_digest(f"{before}\nB = 1")
    assert code_digest(only_types.replace("if TYPE", "if not TYPE")) != code_digest(before)


@settings(deadline=None, max_examples=30)
@given(path=st.sampled_from(MODULES), data=st.data())
def test_layout_does_not_count_and_each_number_and_operator_does(
    path: Path, data: st.DataObject
) -> None:
    """The package's own code, as Python itself would lay it out, without and with one change."""
    tree = ast.parse(path.read_bytes())
    before = code_digest(path.read_bytes())
    assert code_digest(tree) == before
    nodes = [node for node in ast.walk(tree) if changed(node)]
    if nodes:
        node = data.draw(st.sampled_from(nodes))
        vars(node).update(changed(node))
        assert code_digest(tree) != before


def changed(node: ast.AST) -> dict[str, object]:
    """Other values of a node's fields, where no result may survive these; empty elsewhere."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return {"value": value + 1}
        case ast.BinOp(op=ast.Mult()):
            return {"op": ast.Pow()}
        case ast.Compare(ops=[ast.Lt() | ast.Gt()]):
            return {"ops": [ast.LtE()]}
        case ast.arguments(defaults=[_, *others]):
            return {"defaults": others}
    return {}


def divided(code: str) -> list[tuple[str, bool]]:
    """(names that it binds, whether it counts always) of each part of an `__init__`."""
    return [(" ".join(sorted(part.binds)), part.always) for part in parts(code.encode(), "p", True)]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("from .b import f, g as h", [("f", False), ("h", False)]),
        ("import a.b, c.d as e", [("a", False), ("e", False)]),
        ("def f(x=1):\n    y = x", [("f", False)]),
        ("X = {1: 2}", [("X", False)]),
        ("X: int = 1", [("X", False)]),
        ("X = Y = 1", [("X Y", False)]),
        ("X = f()", [("X", True)]),
        ("X[0] = 1", [("", True)]),
        ("X += 1", [("X", True)]),
        ("from .b import *", [("*", True)]),
        ("class C:\n    y = 1", [("C", True)]),
        ("@f\ndef g(): ...", [("g", True)]),
        ("def __getattr__(name): ...", [("__getattr__", True)]),
        ("try:\n    import a\nexcept E:\n    a = None", [("a", True)]),
        ("'''Text.'''\npass", []),
    ],
)
def test_an_init_is_divided_into_what_binds_names_and_what_acts(
    statement: str, expected: list[tuple[str, bool]]
) -> None:
    assert divided(statement) == expected


EVERYTHING = r"""
x: int = -1; y = "é☃🫨\ud800"; s = f"a{x}b" "c" f"{x!r:>{y}}" f"{x:}{x=}" f"{x:{y}{y}}"; u = u"s"
def f(a, /, b=1.5, *c, d: "D", e=None, **g) -> "int": return lambda *q: {**g, 1: b"x", 2j: ...}
match x:
    case None | True: y
    case {"a": 1, **r} | [1, *_]: x[1:2, ...]
async def h():
    async with f(a) as b, c: return [i async for i in await x if (w := i)]
try: x
except* E as e: raise
class C(B, m=1):
    @property
    def g(self): "doc"
"""


def test_versions_of_python_agree() -> None:
    """The hash that Python 3.11, 3.12, 3.13 and 3.14 gave."""
    assert code_digest(EVERYTHING).startswith("590a743734b004c3")
