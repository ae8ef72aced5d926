"""The parts of a package's modules, kept beside Python's bytecode.

Each process of a stage asks for the parts of some hundred modules, and parsing them takes half a
second. They are kept in `__pycache__`, by the SHA-256 of a module's bytes: what changed is parsed.
A file of another Python, of other rules of `syntax`, or that is damaged, is left out and replaced;
where none can be written, or Python writes no bytecode, every process parses.
"""

import hashlib
import json
import sys
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from sae_repro import syntax
from sae_repro.files import canonical_json, digest, sha256_file, write_text
from sae_repro.syntax import Part

Row = list[Any]
"""The fields of a part, in their order."""


class Parsed:
    """The modules of the package in the folder `package`."""

    def __init__(self, package: Path) -> None:
        self._place = _place(package)
        self._rows: dict[str, tuple[str, list[Row]]] = {}  # by module: SHA-256 of its bytes, parts
        if self._place is not None:
            with suppress(OSError, ValueError, KeyError, TypeError):
                kept = json.loads(self._place.read_bytes())
                if kept["sha256"] == _checksum(kept["modules"]):
                    self._rows = kept["modules"]
        self._parts: dict[str, tuple[str, tuple[Part, ...]]] = {}
        self._parsed_some = False

    def parts(self, path: Path, module: str) -> tuple[Part, ...]:
        """See `syntax.parts`, of the file `path` that holds `module`, as it is now."""
        code = path.read_bytes()
        key = hashlib.sha256(code).hexdigest()
        if self._parts.get(module, ("",))[0] != key:
            of, rows = self._rows.get(module, ("", []))
            kept = tuple(map(_part, rows)) if of == key else None
            self._parts[module] = (
                key,
                self._parse(code, key, path, module) if kept is None else kept,
            )
        return self._parts[module][1]

    def keep(self) -> None:
        """Have what was parsed at hand for the next process."""
        if self._parsed_some and self._place is not None and not sys.dont_write_bytecode:
            self._parsed_some = False
            kept = {"sha256": _checksum(self._rows), "modules": self._rows}
            with suppress(OSError):
                write_text(self._place, canonical_json(kept))

    def _parse(self, code: bytes, key: str, path: Path, module: str) -> tuple[Part, ...]:
        found = syntax.parts(code, module, path.name == "__init__.py")
        self._rows[module] = key, [_row(part) for part in found]
        self._parsed_some = True
        return found


def _place(package: Path) -> Path | None:
    """The file; None where this Python keeps no bytecode."""
    try:
        bytecode = Path(cache_from_source(str(package / "__init__.py")))
    except NotImplementedError:
        return None
    return bytecode.with_name(f"parts.{sys.implementation.cache_tag}.json")


def _checksum(modules: Any) -> str:
    return digest([sha256_file(Path(syntax.__file__)), modules])


def _row(part: Part) -> Row:
    return [part.digest, part.imports, sorted(part.binds), sorted(part.uses), part.always]


def _part(row: Row) -> Part:
    digest, imports, binds, uses, always = row
    pairs = tuple((module, name) for module, name in imports)
    return Part(digest, pairs, frozenset(binds), frozenset(uses), always)
