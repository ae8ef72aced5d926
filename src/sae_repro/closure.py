"""The import closure of a module: all code and data of the package that decide its output.

    closure(Path("src"), "sae_repro.train")       # the modules
    code_digest(Path("src"), "sae_repro.train")   # a hash of their code
    code_listing(Path("src"), "sae_repro.train")  # a hash of each: what code/train.txt holds

Read from the syntax; nothing is imported. Imports count at the head of a module and inside its
functions, but not under `if TYPE_CHECKING:`, and a string annotation is none.

- A module that is reached counts whole, and all its imports are followed.
- An `__init__` counts by statement, so that a name that it re-exports leads to where the name is
  defined, and to nothing else. Its imports, undecorated functions, and assignments that call
  nothing count once a name that they bind is requested; the names that they use are then requested,
  too. Its other statements (a class, a decorated function, a call, an `if`) count always: they run
  with the import of any module below. An `__init__` of which nothing counts is not in the closure.
- All of an `__init__` is requested by a start, by `import a.b`, by `from a import b` where b is a
  package, and by `from a.b import *`.
- What `EXEMPT` lists is neither followed nor counted.
- With the modules count their data: what is no Python in the folder of one of them, and in its
  subfolders that are no packages; hidden files apart.

Assumed: a module does nothing on import but bind names.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.files import digest, sha256_file
from sae_repro.parsed import Parsed
from sae_repro.syntax import ALL, Part, prefixes

PACKAGE = "sae_repro"

EXEMPT: Mapping[str, str] = {
    "sae_repro.closure": "names the keys of cells, decides nothing in them",
    "sae_repro.costs": "the time that a training took, out of every result",
    "sae_repro.errors": "messages only",
    "sae_repro.garbage": "when memory is searched for what is no longer used",
    "sae_repro.installation": "as stage",
    "sae_repro.live": "shows curves in MLflow; only reads what training wrote",
    "sae_repro.parsed": "as closure",
    "sae_repro.progress": "shows work to people; no result depends on it",
    "sae_repro.sharedstore": "moves finished cells, as sealed; only sharing calls it",
    "sae_repro.sharing": "as sharedstore; only sidebyside calls it",
    "sae_repro.sidebyside": "distribution of jobs over workers; no result depends on it",
    "sae_repro.stage": "locks, errors, access to parameters; it refuses, no more",
    "sae_repro.syntax": "as closure",
}
"""Modules that decide no output, and why not."""

NOTHING = ""  # requested in place of a name: what runs at import


def closure(source: Path, *modules: str) -> frozenset[str]:
    """The dotted names of `modules` and of all that decides what they do.

    `source` is the folder in which the package lies. StudyError where a module is not there.
    """
    return frozenset(_counted(source, _files(source), modules))


def code_digest(source: Path, *modules: str) -> str:
    """SHA-256 over the closure of `modules`, as Python understands it, and over its data.

    Comments, layout, docstrings and the `description` of a `Field` change nothing; anything else
    that can run does. Python 3.11 and later agree.
    """
    files = _files(source)
    counted = _counted(source, files, modules)
    data = _data(files[module].parent for module in counted)
    return digest(
        {
            "code": {module: [part.digest for part in counted[module]] for module in counted},
            "data": {path.relative_to(source).as_posix(): sha256_file(path) for path in data},
        }
    )


def code_listing(source: Path, *modules: str) -> str:
    """A line for each module of the closure of `modules` and each file of its data, by path.

    `<SHA-256>  <path below source>`, as sha256sum writes it; a module's is over its code as Python
    understands it (see `code_digest`), a data file's over its bytes.
    """
    files = _files(source)
    counted = _counted(source, files, modules)
    hashes = {
        files[module]: digest([part.digest for part in counted[module]]) for module in counted
    }
    hashes |= {path: sha256_file(path) for path in _data(path.parent for path in list(hashes))}
    named = sorted((path.relative_to(source).as_posix(), hashed) for path, hashed in hashes.items())
    return "".join(f"{hashed}  {name}\n" for name, hashed in named)


def _files(source: Path) -> dict[str, Path]:
    """The file of each module of the package, by dotted name."""
    files = {}
    for path in (source / PACKAGE).rglob("*.py"):
        *parents, name = path.relative_to(source).with_suffix("").parts
        files[".".join(parents if name == "__init__" else [*parents, name])] = path
    return files


@cache
def _parsed(source: Path) -> Parsed:
    return Parsed(source / PACKAGE)


def _counted(
    source: Path, files: Mapping[str, Path], modules: Iterable[str]
) -> dict[str, list[Part]]:
    """The parts that count, for each module of the closure."""
    parsed = _parsed(source)
    todo = [(module, ALL) for module in modules]
    counted: dict[str, set[Part]] = {module: set() for module, _ in todo}
    requested = set()
    while todo:
        module, name = request = todo.pop()
        if request in requested or prefixes(module)[0] != PACKAGE:
            continue
        requested.add(request)
        todo += [(parent, NOTHING) for parent in prefixes(module)[:-1]]
        if module in EXEMPT:
            continue
        module_parts = _parts(parsed, files, module)
        for part in module_parts:
            if part.always or name == ALL or name in part.binds:
                counted.setdefault(module, set()).add(part)
                todo += [*part.imports, *((module, used) for used in part.uses)]
        if f"{module}.{name}" in files:
            todo.append((f"{module}.{name}", ALL))
        elif name != NOTHING and not any(name in part.binds for part in module_parts):
            todo.append((module, ALL))  # whatever in it gives it that name
    parsed.keep()
    return {
        module: [part for part in _parts(parsed, files, module) if part in selected]
        for module, selected in counted.items()
    }


def _parts(parsed: Parsed, files: Mapping[str, Path], module: str) -> tuple[Part, ...]:
    if module not in files:
        raise StudyError(f"{module}: no such module in the package; check its spelling")
    path = files[module]
    try:
        return parsed.parts(path, module)
    except SyntaxError as error:
        raise StudyError(f"{path}: line {error.lineno}: {error.msg}; correct it") from None


def _data(folders: Iterable[Path]) -> set[Path]:
    """The files that are no Python in `folders`, and in their subfolders that are no packages."""
    files = set()
    for path in {path for folder in folders for path in _visible(folder)}:
        if path.is_file() and path.suffix != ".py":
            files.add(path)
        elif path.is_dir() and not (path / "__init__.py").is_file():
            files |= _data([path])
    return files


def _visible(folder: Path) -> Iterator[Path]:
    """The contents of `folder`, without hidden files, Python's caches, the mark of a typed one."""
    for path in folder.iterdir():
        if not path.name.startswith(".") and path.name not in ("__pycache__", "py.typed"):
            yield path
