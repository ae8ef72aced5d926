"""The locks: all that pyproject.toml asks for, nothing else, a hash for every release."""

import importlib.util
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENTRY = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>[^\s;\\]+)[^\\\n]*(?P<hashes>( \\\n    --hash=\S+)*)$", re.M
)

spec = importlib.util.spec_from_file_location("lock", ROOT / "locks/lock.py")
assert spec is not None and spec.loader is not None
lock = importlib.util.module_from_spec(spec)
sys.modules["lock"] = lock
spec.loader.exec_module(lock)

BASE = [lock.TORCH, *lock.BUILD, *PROJECT["dependencies"]]
DEV = [r for extra in lock.EXTRAS for r in PROJECT["optional-dependencies"][extra]]


def entries(path: Path) -> dict[str, re.Match[str]]:
    """The releases of a lock by name."""
    return {found["name"]: found for found in ENTRY.finditer(path.read_text())}


def closure(roots: list[str]) -> set[str]:
    """What `roots` need here, by the metadata of what is installed; without CUDA's packages."""
    todo, seen = [(Requirement(root), "") for root in roots], set()
    names = set()
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed: `make dev` installs the locks")
        names.add(name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                todo += [(Requirement(r), wanted) for r in installed.requires or ()]
    return names - set(entries(lock.CUDA))


@pytest.mark.parametrize(
    "path", [lock.BASE, lock.DEV, lock.CUDA, lock.PEER], ids=lambda path: path.name
)
def test_every_release_has_a_hash(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if "==" in line and line[0].isalnum()]
    found = entries(path)
    assert len(found) == len(lines) > 10
    for name, entry in found.items():
        assert re.fullmatch(r"( \\\n    --hash=sha256:[0-9a-f]{64})+", entry["hashes"]), name


def test_the_base_holds_what_the_package_needs_and_nothing_else() -> None:
    assert set(entries(lock.BASE)) == closure(BASE)


def test_the_extras_add_what_tests_need_and_nothing_else() -> None:
    assert set(entries(lock.DEV)) == closure([*BASE, *DEV]) - closure(BASE)
    assert "sae-lens" in entries(lock.DEV) and "optuna-dashboard" in entries(lock.DEV)


def test_the_libraries_beside_ours_are_locked_without_another_torch() -> None:
    peers = entries(lock.PEER)
    assert {*lock.PEERS} <= set(peers)
    assert not set(peers) & {*entries(lock.BASE), *entries(lock.CUDA), "torchvision"}


def test_the_locks_fit_what_pyproject_asks_for() -> None:
    known = {n: e["version"] for p in (lock.BASE, lock.DEV) for n, e in entries(p).items()}
    for requirement in map(Requirement, [*BASE, *DEV]):
        assert requirement.specifier.contains(known[canonicalize_name(requirement.name)])


def test_this_environment_is_the_locked_one() -> None:
    for path in (lock.BASE, lock.DEV):
        for name, entry in entries(path).items():
            try:
                installed = Version(distribution(name).version).public
            except PackageNotFoundError:
                pytest.skip(f"{name} is not installed: `make dev` installs the locks")
            assert installed == entry["version"], name


# how the locks are made


def release(name: str, *requires: str) -> "lock.Release":
    return lock.Release(name, "1", requires, pure=True)


def test_what_a_system_needs_follows_markers_and_extras() -> None:
    known = {
        "a": release("a", "b[fast]", 'mac; sys_platform == "darwin"', 'old; python_version<"3.12"'),
        "b": release("b", 'c; extra == "fast"', 'd; extra == "slow"'),
        "c": release("c"),
        "old": release("old"),
    }
    needed = {str(t): lock.needed(known, ["a"], t) for t in lock.TARGETS}
    assert needed["linux-x86_64, Python 3.12"] == ({"a", "b", "c"}, set())
    assert needed["linux-aarch64, Python 3.11"] == ({"a", "b", "c", "old"}, set())
    assert needed["macos-arm64, Python 3.13"] == ({"a", "b", "c"}, {"mac"})


def test_a_package_that_some_systems_need_has_a_marker_for_them() -> None:
    linux = {t for t in lock.TARGETS if t.system.startswith("linux")}
    for wanting in (linux, {lock.TARGETS[0]}, {lock.TARGETS[-1], lock.TARGETS[4]}):
        condition = Requirement(f"a{lock.marker(wanting)}").marker
        assert condition is not None
        assert {t for t in lock.TARGETS if condition.evaluate(t.environment)} == wanting
    assert lock.marker(set(lock.TARGETS)) == ""
