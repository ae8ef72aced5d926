"""Parts of modules that are kept between processes: the same digests, from what is there now."""

import json
import sys
from dataclasses import astuple
from pathlib import Path

import pytest

from sae_repro import syntax
from sae_repro.closure import PACKAGE
from sae_repro.parsed import Parsed

SOURCE = Path(__file__).resolve().parents[1] / "src"
CODE = {
    "__init__.py": "from sae_repro.a import f\n\ndef g():\n    return f()\n",
    "a.py": "import os\n\ndef f():\n    from sae_repro import b\n    return b.x\n",
    "b.py": "",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    folder = tmp_path / PACKAGE
    folder.mkdir()
    for name, code in CODE.items():
        (folder / name).write_text(code)
    return folder


def read(package: Path) -> dict[str, list[tuple[object, ...]]]:
    """The fields of all parts, as a process of its own reads them."""
    parsed, found = Parsed(package), {}
    for path in sorted(package.glob("*.py")):
        module = PACKAGE if path.stem == "__init__" else f"{PACKAGE}.{path.stem}"
        found[module] = [astuple(part) for part in parsed.parts(path, module)]
    parsed.keep()
    return found


def kept(package: Path) -> Path:
    (file,) = (package / "__pycache__").glob("parts.*.json")
    return file


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules that are parsed."""
    modules: list[str] = []
    parts = syntax.parts

    def count(code: bytes, module: str, is_init: bool) -> tuple[syntax.Part, ...]:
        modules.append(module.removeprefix(f"{PACKAGE}."))
        return parts(code, module, is_init)

    monkeypatch.setattr(syntax, "parts", count)
    return modules


def test_what_is_kept_is_what_was_parsed(package: Path, counted: list[str]) -> None:
    first = read(package)
    assert counted == [PACKAGE, "a", "b"]
    written = kept(package).stat().st_mtime_ns
    assert read(package) == first
    assert counted == [PACKAGE, "a", "b"]
    assert kept(package).stat().st_mtime_ns == written


def test_every_module_of_the_package_survives(package: Path) -> None:
    for path in (SOURCE / PACKAGE).rglob("*.py"):
        (package / "-".join(path.relative_to(SOURCE).parts)).write_bytes(path.read_bytes())
    first = read(package)
    assert len(first) > 400
    assert read(package) == first


def test_only_what_changed_is_parsed(package: Path, counted: list[str]) -> None:
    first = read(package)
    counted.clear()
    (package / "a.py").write_text(CODE["a.py"] + "x = 1\n")
    second = read(package)
    assert counted == ["a"]
    assert second["sae_repro.a"] != first["sae_repro.a"]
    (package / "a.py").write_text(CODE["a.py"])
    assert read(package) == first


def test_a_module_that_changes_while_a_process_runs_is_parsed_again(package: Path) -> None:
    parsed = Parsed(package)
    (first,) = parsed.parts(package / "b.py", "sae_repro.b")
    (package / "b.py").write_text("x = 1\n")
    (second,) = parsed.parts(package / "b.py", "sae_repro.b")
    assert first.digest != second.digest
    assert parsed.parts(package / "b.py", "sae_repro.b") == (second,)


@pytest.mark.parametrize("fault", ["cut", "another digest", "no mapping", "other rules"])
def test_what_cannot_be_trusted_is_parsed_anew(
    package: Path, counted: list[str], fault: str
) -> None:
    first = read(package)
    file = kept(package)
    text = file.read_text()
    document = json.loads(text)
    digest = document["modules"]["sae_repro.a"][1][0][0]
    rules = document | {"sha256": 64 * "0"}
    file.write_text(
        {
            "cut": text[:-9],
            "another digest": text.replace(digest, 64 * "1"),
            "no mapping": "[]",
            "other rules": json.dumps(rules),
        }[fault]
    )
    counted.clear()
    assert read(package) == first
    assert counted == [PACKAGE, "a", "b"]
    assert kept(package).read_text() == text


def test_nothing_is_written_where_python_writes_no_bytecode(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    read(package)
    assert not (package / "__pycache__").exists()


def test_a_folder_that_cannot_be_written_costs_time_alone(package: Path) -> None:
    (package / "__pycache__").write_text("a file in its place")
    assert read(package) == read(package)
