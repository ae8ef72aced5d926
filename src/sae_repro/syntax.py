"""Syntax of a source file: its parts, with the names that each binds, uses and imports.

Comments, layout, docstrings, the `description` of a pydantic `Field` or of an axis' row, and what
is under `if TYPE_CHECKING:` are left out: no result depends on them.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sae_repro.files import digest

DESCRIBED = ("Field", "Activation", "Penalty", "Prefixes", "Revival")
"""Classes whose `description` is for people: fields of the schema, rows of `params.axes`."""

ALL = "*"
"""Stands for a name in imports: everything that the module binds."""

Import = tuple[str, str]
"""(module, name in it); both dotted names are absolute."""


@dataclass(frozen=True, eq=False)
class Part:
    """A statement of an `__init__`, or all of another module.

    Without its syntax tree: some hundred of those, if kept, take the garbage collector as long as
    everything else here.
    """

    digest: str
    """SHA-256 over its syntax, the same under Python 3.11 and later."""
    imports: tuple[Import, ...]
    """Anywhere inside, in functions as well."""
    binds: frozenset[str] = frozenset()
    """Names that others can import."""
    uses: frozenset[str] = frozenset()
    """Names that this part or others of the `__init__` bind."""
    always: bool = True
    """Whether it runs at any import from its package and can have side effects."""


def parts(code: bytes, module: str, is_init: bool) -> tuple[Part, ...]:
    """The parts of the file that holds `module`, a dotted name; SyntaxError where it isn't Python.

    An `__init__` is divided, so that what it re-exports can be told apart: a part for each of its
    statements and each imported name.
    """
    tree = _Running().visit(ast.parse(code, filename=module))
    if not is_init:
        return (Part(_digest(tree), tuple(_imports(tree, module.rpartition(".")[0]))),)
    statements = list(_divided(tree.body))
    bound = [frozenset(_bound(statement)) for statement in statements]
    names = frozenset().union(*bound)
    return tuple(
        Part(
            digest=_digest(statement),
            imports=tuple(_imports(statement, module)),
            binds=binds,
            uses=names & {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)},
            always=not _only_binds(statement),
        )
        for statement, binds in zip(statements, bound, strict=True)
    )


def prefixes(module: str) -> list[str]:
    """`a`, `a.b`, `a.b.c` of `a.b.c`."""
    words = module.split(".")
    return [".".join(words[: i + 1]) for i in range(len(words))]


class _Running(ast.NodeTransformer):
    """Leaves of a tree what can run and can decide something."""

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        return node.orelse if _last(node.test) == "TYPE_CHECKING" else node

    def visit_Expr(self, node: ast.Expr) -> Any:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def visit_Pass(self, node: ast.Pass) -> None:
        """A docstring makes it needless, and changes nothing."""

    def visit_Call(self, node: ast.Call) -> Any:
        if _last(node.func) in DESCRIBED:
            node.keywords = [k for k in node.keywords if k.arg != "description"]
        return self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> Any:
        # Python 3.12.0 adds empty pieces
        node.values = [v for v in node.values if not (isinstance(v, ast.Constant) and not v.value)]
        return self.generic_visit(node)


def _last(node: ast.expr) -> str:
    """`name` of the expressions `name` and `anything.name`, empty for others."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return str(name)
    return ""


def _divided(statements: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """`statements`, an import of several names as one of each."""
    for statement in statements:
        match statement:
            case ast.Import(names=aliases):
                yield from (ast.Import([alias]) for alias in aliases)
            case ast.ImportFrom(module=module, names=aliases, level=level):
                yield from (ast.ImportFrom(module, [alias], level) for alias in aliases)
            case _:
                yield statement


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds; inner scopes of what isn't a definition add theirs."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name):
                yield name
            case ast.alias(name=name, asname=other):
                yield other or name.partition(".")[0]


def _only_binds(statement: ast.stmt) -> bool:
    """Whether a statement, at import, gives names their values and surely does nothing else."""
    match statement:
        case ast.Import(names=[alias]) | ast.ImportFrom(names=[alias]):
            return bool(alias.name != ALL)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            # a decorator can register; Python itself calls `__getattr__`
            return not statement.decorator_list and not name.startswith("__")
        case ast.Assign(targets=targets):
            plain = all(isinstance(target, ast.Name) for target in targets)
        case ast.AnnAssign(target=target):
            plain = isinstance(target, ast.Name)
        case _:
            return False
    calls = (ast.Call, ast.NamedExpr)
    return plain and not any(isinstance(node, calls) for node in ast.walk(statement))


def _imports(tree: ast.AST, package: str) -> Iterator[Import]:
    """All imports in `tree`, the syntax of a module of `package`."""
    for statement in _statements(tree):
        match statement:
            case ast.Import(names=aliases):
                for alias in aliases:
                    # without `as`, its parents are at hand as well
                    whole = [alias.name] if alias.asname else prefixes(alias.name)
                    yield from ((module, ALL) for module in whole)
            case ast.ImportFrom(module=module, names=aliases, level=level):
                above = prefixes(package)[-level] if level else ""
                source = ".".join(filter(None, (above, module)))
                yield from ((source, alias.name) for alias in aliases)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """`tree` and the statements in it, at any depth; expressions, most of a tree, are passed by."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            below = getattr(node, name, None)
            if isinstance(below, list):  # a lambda's and a conditional's are expressions
                todo += below


def _digest(tree: ast.AST) -> str:
    return digest(_plain(tree))


def _plain(value: Any) -> Any:
    """A syntax tree as lists, mappings and text, without what versions of Python differ in."""
    if isinstance(value, ast.AST):
        fields = {}
        for name in value._fields:
            field = getattr(value, name, None)
            if field is not None and field != [] and name not in ("type_comment", "kind"):
                fields[name] = _plain(field)
        return [type(value).__name__, fields]
    if isinstance(value, list):
        return [_plain(item) for item in value]
    # which characters `repr` shows as they are is a matter of Python's version, too
    return f"{type(value).__name__} {value!a}"
