"""The import closure that decides an output, and the digest of its code."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dis import get_instructions
from pathlib import Path
from textwrap import dedent
from types import CodeType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sae_repro.closure import EXEMPT, closure, code_digest, code_listing
from sae_repro.errors import StudyError

SOURCE = Path(__file__).resolve().parents[1] / "src"
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SOURCE / "sae_repro").rglob("*.py"))
}
STAGES = [
    module for module, path in MODULES.items()
    if path.name == "__init__.py" and "\ndef run(" in path.read_text()
]  # fmt: skip


def written(source: Path, files: Mapping[str, str]) -> Path:
    """`source` with a package of these files; an `__init__` that is not among them is empty."""
    for name, text in files.items():
        path = source / "sae_repro" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        for folder in path.relative_to(source).parents:
            if path.suffix == ".py" and folder != Path():
                (source / folder / "__init__.py").touch()
    return source


def names(modules: frozenset[str]) -> str:
    """The modules without the package's name, in order."""
    return " ".join(sorted(module.removeprefix("sae_repro.") for module in modules))


# ---- modules that are reached


FOLLOWED = {
    "at the head": ({"a.py": "from sae_repro.b import f", "b.py": ""}, "a b"),
    "in a function": ({"a.py": "def f():\n  from sae_repro.b import g", "b.py": ""}, "a b"),
    "further on": (
        {"a.py": "import sae_repro.b as b", "b.py": "from sae_repro.c import x", "c.py": ""},
        "a b c",
    ),
    "in a circle": (
        {"a.py": "from sae_repro.b import f", "b.py": "def f(): from sae_repro.a import g"},
        "a b",
    ),
    "a module as a name": ({"a.py": "from sae_repro.p import m", "p/m.py": ""}, "a p.m"),
    "parents, without `as`": (
        {
            "a.py": "import sae_repro.p.m",
            "p/__init__.py": "from sae_repro.b import f",
            **dict.fromkeys(("p/m.py", "b.py"), ""),
        },
        "a b p p.m",
    ),
    "relative": (
        {
            "p/a.py": "from .b import f\nfrom . import c\nfrom ..d import g\nfrom ..q import e",
            **dict.fromkeys(("p/b.py", "p/c.py", "d.py", "q/e.py", "q/f.py"), ""),
        },
        "d p.a p.b p.c q.e",
    ),
    "relative in an init": (
        {"a.py": "from sae_repro.p import f", "p/__init__.py": "from .b import f", "p/b.py": ""},
        "a p p.b",
    ),
    "a parent's code": (
        {
            "a.py": "from sae_repro.p.q import m",
            "p/__init__.py": "from sae_repro.b import set_up\nset_up()",
            "p/q/m.py": "",
            "b.py": "",
        },
        "a b p p.q.m",
    ),
    "not for types": (
        {
            "a.py": """
                import typing
                from typing import TYPE_CHECKING
                if TYPE_CHECKING:
                    from sae_repro.b import B
                else:
                    from sae_repro.d import B
                if typing.TYPE_CHECKING:
                    from sae_repro.c import C
                def f(b: "B") -> "sae_repro.c.C": ...
            """,
            **dict.fromkeys(("b.py", "c.py", "d.py"), ""),
        },
        "a d",
    ),
    "not others' packages": ({"a.py": "import os.path, numpy, sae_repro_more.b", "b.py": ""}, "a"),
    "not exempt": (
        {
            "a.py": "from sae_repro.stage import STATE\nfrom sae_repro import errors",
            "stage.py": "from sae_repro.b import f",
            **dict.fromkeys(("b.py", "errors.py"), ""),
        },
        "a",
    ),
}


@pytest.mark.parametrize(("files", "expected"), FOLLOWED.values(), ids=FOLLOWED)
def test_imports_are_followed(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    start = "sae_repro." + next(iter(files)).removesuffix(".py").replace("/", ".")
    assert names(closure(written(tmp_path, files), start)) == expected


PARAMS = """
    '''One schema.'''
    from sae_repro.base import Section
    from sae_repro.params.cell import Cell
    from sae_repro.params.deep import Deeper as Deep
    from sae_repro.params import judge
    import sae_repro.text as text

    __all__ = ["Cell", "Deep", "judge", "load", "KINDS", "__version__"]
    __version__ = "1"
    KINDS = {Section: 1}

    def load(path: "Cell"):
        from sae_repro.lazy import read
        return _checked(read(path))

    def _checked(raw):
        return text.strip(raw)
"""


@pytest.mark.parametrize(
    ("asks", "expected"),
    [
        ("from sae_repro.params import Cell", "params params.cell"),
        ("from sae_repro.params import Cell as C, KINDS", "base params params.cell"),
        ("from sae_repro.params import Deep", "params params.deep params.deep.inner"),
        ("from sae_repro.params import judge", "params params.judge"),
        ("from sae_repro.params import load", "lazy params text"),
        ("from sae_repro.params import __version__", "params"),
        ("import sae_repro.params.cell as cell", "params.cell"),
        ("from sae_repro.params.cell import Cell", "params.cell"),
        ("from sae_repro.params.free import f", "params.free"),
        *(
            (whole, "base lazy params params.cell params.deep params.deep.inner params.judge text")
            for whole in (
                *("from sae_repro.params import *", "import sae_repro.params"),
                *("from sae_repro import params", "def f(): import sae_repro.params as p"),
                "from sae_repro.params import from_nowhere",
            )
        ),
    ],
)
def test_a_name_leads_to_where_it_is_defined(tmp_path: Path, asks: str, expected: str) -> None:
    """A re-export must not drag in all others: each stage would depend on all sections."""
    source = written(
        tmp_path,
        {
            "a.py": asks,
            "params/__init__.py": PARAMS,
            "params/deep/__init__.py": "from .inner import Deeper\nfrom .other import Other",
            **dict.fromkeys(("params/cell.py", "params/judge.py", "params/free.py"), ""),
            **dict.fromkeys(("params/deep/inner.py", "params/deep/other.py"), ""),
            **dict.fromkeys(("base.py", "text.py", "lazy.py"), ""),
        },
    )
    assert names(closure(source, "sae_repro.a") - {"sae_repro.a", "sae_repro"}) == expected


@pytest.mark.parametrize(
    "runs",
    [
        "used()",
        "X = used()",
        "class C(used): ...",
        "class C:\n    def method(self): return used",
        "@used\ndef f(): ...",
        "@staticmethod\ndef f(): return used",
        "def __getattr__(name): return used",
        "for x in used: ...",
        "try:\n    import fast\nexcept ImportError:\n    fast = used",
        "REGISTRY = {}\nREGISTRY['x'] = used",
        "if used: ...",
        "from sae_repro.b import *",
        "def f(): return used\nf()",
    ],
)
def test_code_run_by_an_init_counts_for_its_submodules(tmp_path: Path, runs: str) -> None:
    init = f"from sae_repro.b import used\nfrom sae_repro.c import unused\n{runs}"
    files = {"a.py": "from sae_repro.p.m import f", "p/__init__.py": init}
    source = written(tmp_path, files | dict.fromkeys(("p/m.py", "b.py", "c.py"), ""))
    assert names(closure(source, "sae_repro.a")) == "a b p p.m"


def test_a_start_counts_whole_and_without_its_submodules(tmp_path: Path) -> None:
    init = "from sae_repro.b import f\ndef run():\n    from sae_repro.p import m"
    files = {"p/__init__.py": init, **dict.fromkeys(("p/m.py", "p/n.py", "b.py"), "")}
    source = written(tmp_path, {**files, "empty/m.py": ""})
    assert names(closure(source, "sae_repro.p")) == "b p p.m"
    assert names(closure(source, "sae_repro.empty")) == "empty"
    assert names(closure(source, "sae_repro.empty", "sae_repro.b")) == "b empty"


@pytest.mark.parametrize("text", ["import sae_repro.b", "from sae_repro.b import f"])
def test_a_module_that_is_not_there_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(StudyError, match=r"sae_repro\.b: no such module"):
        closure(written(tmp_path, {"a.py": text}), "sae_repro.a")


# ---- against Python itself


@st.composite
def packages(draw: st.DrawFn) -> dict[str, str]:
    """Three packages of three modules, which import from earlier ones in every way there is.

    `f()` of a module gives the names of the modules whose `f` is called by it.
    """
    files: dict[str, str] = {}
    others: list[str] = []  # imports of something as NAME, of the packages so far
    for p in "pqr":
        init: list[str] = []
        own: list[str] = []
        outside: list[str] = []
        for m in "abc":
            ways = st.lists(st.sampled_from(own + others), max_size=2, unique=True)
            chosen = draw(ways) if own + others else []
            imports = [way.replace("NAME", f"g{i}") for i, way in enumerate(chosen)]
            called = " | ".join(["{__name__}", *(f"g{i}()" for i in range(len(chosen)))])
            function = ["def f():", f"    return {called}"]
            where = 1 if draw(st.booleans()) else 0
            imports = ["    " * where + line for line in imports]
            files[f"{p}/{m}.py"] = "\n".join([*function[:where], *imports, *function[where:]])
            own += [f"from sae_repro.{p}.{m} import f as NAME", f"from .{m} import f as NAME"]
            outside += [
                f"from sae_repro.{p}.{m} import f as NAME",
                f"from ..{p} import {m} as x; NAME = x.f",
                f"import sae_repro.{p}.{m} as x; NAME = x.f",
            ]
            if draw(st.booleans()):
                init.append(f"from .{m} import f as f_{m}")
                outside.append(f"from sae_repro.{p} import f_{m} as NAME")
            if draw(st.booleans()):
                init.append(f"from .{m} import f as h_{m}\ndef own_{m}(): return h_{m}()")
                outside.append(f"from sae_repro.{p} import own_{m} as NAME")
        files[f"{p}/__init__.py"] = "\n".join(init)
        others += outside
    return files


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(files=packages(), module=st.sampled_from(["pa", "pc", "qa", "qc", "ra", "rb", "rc"]))
def test_functions_that_run_are_in_the_closure(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str], module: str
) -> None:
    source = written(tmp_path_factory.mktemp("src"), files)
    start = f"sae_repro.{'.'.join(module)}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"from {start} import f; print(*f())"],
        cwd=source, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(source)},
    )  # fmt: skip
    inits = {"sae_repro", *(f"sae_repro.{p}" for p in "pqr")}
    assert set(done.stdout.split()) == closure(source, start) - inits


OUTSIDE = """
class Outside:
    def __or__(self, other): return self  # in annotations
    __ror__ = __or__

def _refuse(name):
    def refuse(self, *args, **kwargs): raise RuntimeError(f"{name} of what is not in the closure")
    return refuse

for name in "call getattr iter getitem mro_entries bool eq hash enter len contains get".split():
    setattr(Outside, f"__{name}__", _refuse(name))

def __getattr__(name):
    if name.startswith("__"): raise AttributeError(name)
    return Outside()
"""


@pytest.mark.parametrize("start", ["sae_repro.autoencoders.saved", "sae_repro.training.trainer"])
def test_modules_outside_the_closure_can_be_deleted(tmp_path: Path, start: str) -> None:
    """Its modules are imported beside stubs that refuse to be used, and have nothing of these."""
    inside = closure(SOURCE, start)
    shutil.copytree(SOURCE / "sae_repro", tmp_path / "sae_repro")
    for module in plain(MODULES) - inside - EXEMPT.keys():
        (tmp_path / MODULES[module].relative_to(SOURCE)).write_text(OUTSIDE)
    output, holders = imported(tmp_path, inside)
    assert inside <= output
    assert not holders & plain(inside)


def test_the_closure_is_no_larger_than_what_python_loads() -> None:
    inside = closure(SOURCE, "sae_repro.autoencoders.saved")
    output, _ = imported(SOURCE, {"sae_repro.autoencoders.saved", *in_functions(inside)})
    # less, as Python loads what an `__init__` re-exports, too
    assert inside < output


@pytest.mark.parametrize("stage", STAGES)
def test_imports_inside_functions_are_in_the_closure(stage: str) -> None:
    inside = closure(SOURCE, stage)
    assert plain(in_functions(inside)) <= inside | EXEMPT.keys()


def plain(modules: Iterable[str]) -> set[str]:
    """Those of `modules` that are no packages."""
    return {module for module in modules if MODULES[module].name != "__init__.py"}


def in_functions(modules: Iterable[str]) -> set[str]:
    """Imports of the package in the functions of `modules`, by their compiled code."""
    codes = [compile(MODULES[module].read_text(), module, "exec") for module in plain(modules)]
    found = set()
    for code in codes:
        inner = [const for const in code.co_consts if isinstance(const, CodeType)]
        codes += inner
        for function in inner:
            found |= {step.argval for step in get_instructions(function)
                      if step.opname == "IMPORT_NAME"}  # fmt: skip
    return found & MODULES.keys()


def imported(source: Path, modules: Iterable[str]) -> tuple[set[str], set[str]]:
    """Import `modules` below `source`; what Python has then, and which have something `Outside`."""
    code = """
    import sys
    from importlib import import_module
    for name in sys.argv[1:]: import_module(name)
    mine = {name: m for name, m in sys.modules.items() if name.partition(".")[0] == "sae_repro"}
    print(*mine)
    print(*(name for name, module in mine.items() for value in vars(module).values()
            if type(value).__name__ == "Outside" or hasattr(value, "Outside")))
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code), *modules], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    )  # fmt: skip
    output, holders = done.stdout.split("\n")[:2]
    return set(output.split()), set(holders.split())


# ---- this package


def test_exempt_modules_exist_and_have_a_reason() -> None:
    assert EXEMPT.keys() <= MODULES.keys()
    assert all(EXEMPT.values())


def test_a_stage_depends_on_its_own_code_and_never_on_all_of_it() -> None:
    assert STAGES
    for stage in STAGES:
        found = closure(SOURCE, stage)
        assert {stage, "sae_repro.files"} <= found
        assert not any(module.startswith("sae_repro.cli") for module in found)
        assert found < MODULES.keys()


def test_no_module_of_the_package_is_imported_by_a_computed_name() -> None:
    """The closure would not have what can't be read from the syntax."""
    for module, path in MODULES.items():
        for call in re.findall(r"(?:import_module|__import__|exec)\(.*", path.read_text()):
            assert re.match(r'import_module\("(?!sae_repro|\.)\w+"\)', call), f"{module}: {call}"


def test_no_result_follows_from_a_docstring_or_a_description() -> None:
    """The digest leaves them out."""
    for module in closure(SOURCE, *STAGES):
        text = MODULES[module].read_text()
        assert not re.search(r"__doc__(?!=\")|getdoc|getsource|field\.description", text), module


# ---- what of the code counts


def test_only_reachable_modules_count(tmp_path: Path) -> None:
    files = {"a.py": "from sae_repro.b import f", "b.py": "f = 1", "c.py": "f = 1"}
    source = written(tmp_path, files)
    before = code_digest(source, "sae_repro.a")
    written(source, {"c.py": "f = 2", "b.py": "# as before\nf=1"})
    assert code_digest(source, "sae_repro.a") == before
    written(source, {"b.py": "f = 2"})
    assert code_digest(source, "sae_repro.a") != before
    assert code_digest(source, "sae_repro.b") != code_digest(source, "sae_repro.a")


@pytest.mark.parametrize(
    ("init", "counts"),
    [
        ("from .b import f, g", False),
        ("'''It says more.'''\nfrom .b import f", False),
        ("from .b import f\n__all__ = ['f']", False),
        ("from .b import f\ndef other(): return f()", False),
        ("from .b import g as f", True),
        ("from .c import f", True),
        ("from .b import f\nf = 1", True),
        ("from .b import f\nprint(1)", True),
        ("from .b import f\nclass C: ...", True),
    ],
)
def test_only_requested_names_of_an_init_count(tmp_path: Path, init: str, counts: bool) -> None:
    """One more section that `params` re-exports must not retrain a grid."""
    files = {"a.py": "from sae_repro.p import f", "p/b.py": "", "p/c.py": ""}
    source = written(tmp_path, {**files, "p/__init__.py": "from .b import f"})
    before = code_digest(source, "sae_repro.a")
    written(source, {"p/__init__.py": init})
    assert (code_digest(source, "sae_repro.a") != before) is counts


def test_a_change_is_seen_that_leaves_size_and_time_as_they_were(tmp_path: Path) -> None:
    source = written(tmp_path, {"a.py": "x = 1"})
    before = code_digest(source, "sae_repro.a")
    path = source / "sae_repro" / "a.py"
    stat = path.stat()
    path.write_text("x = 2")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert code_digest(source, "sae_repro.a") != before


def test_the_digest_is_the_same_wherever_the_code_lies(tmp_path: Path) -> None:
    shutil.copytree(SOURCE / "sae_repro", tmp_path / "src" / "sae_repro")
    here = code_digest(SOURCE, STAGES[0])
    assert code_digest(tmp_path / "src", STAGES[0]) == here
    assert code_digest(Path(os.path.relpath(SOURCE)), STAGES[0]) == here


def test_data_count_by_their_bytes_with_the_folder_they_lie_in(tmp_path: Path) -> None:
    """A stage reads its prompts without importing them."""
    data = ["p/x.md", "p/prompts/y.md", "p/prompts/deep/z"]
    others = ["p/.hidden", "p/__pycache__/a.pyc", "p/.cache/x", "p/sub/w.md", "q/v.md", "u.md"]
    files = dict.fromkeys(["p/a.py", "p/sub/b.py", "q/c.py", *data, *others], "")
    source = written(tmp_path, files)
    seen = {code_digest(source, "sae_repro.p.a")}
    for name in others:
        written(source, {name: "changed"})
        assert code_digest(source, "sae_repro.p.a") in seen, name
    for name in [*data, "p/new.md"]:
        written(source, {name: "changed"})
        assert code_digest(source, "sae_repro.p.a") not in seen, name
        seen.add(code_digest(source, "sae_repro.p.a"))


# ---- code/S.txt


def lines(source: Path) -> dict[str, str]:
    pairs = [line.split("  ") for line in code_listing(source, "sae_repro.p.a").splitlines()]
    return {name: hashed for hashed, name in pairs}


def test_each_file_of_the_closure_has_a_line_that_its_code_alone_changes(tmp_path: Path) -> None:
    source = written(
        tmp_path,
        {
            "p/a.py": "from sae_repro.p import b\nfrom sae_repro.q import x",
            "p/b.py": "def f():\n    return 1",
            "p/prompts/y.md": "words",
            "p/.hidden": "",
            "q/__init__.py": "x = 1\ny = 2",
            "r.py": "",
        },
    )
    before = lines(source)
    assert list(before) == [
        f"sae_repro/{name}" for name in ("p/a.py", "p/b.py", "p/prompts/y.md", "q/__init__.py")
    ]
    assert all(len(hashed) == 64 for hashed in before.values())
    written(source, {"p/b.py": '# why\ndef f():\n    """One."""\n    return 1'})
    written(source, {"q/__init__.py": "x = 1\ny = 3", "r.py": "z = 1"})
    assert lines(source) == before
    for name, text in {
        "p/b.py": "def f():\n    return 2",
        "p/prompts/y.md": "other words",
        "q/__init__.py": "x = 4",
    }.items():
        written(source, {name: text})
        after = lines(source)
        assert {key for key in after if after[key] != before[key]} == {f"sae_repro/{name}"}
        before = after


def test_the_listed_modules_are_those_of_the_closure() -> None:
    for stage in STAGES:
        listed = {line.split("  ")[1] for line in code_listing(SOURCE, stage).splitlines()}
        modules = {
            MODULES[module].relative_to(SOURCE).as_posix() for module in closure(SOURCE, stage)
        }
        assert {name for name in listed if name.endswith(".py")} == modules
