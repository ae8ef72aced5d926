"""The locks, resolved by pip alone: every release that is installed, and the hashes of its files.

    python locks/lock.py                    # what pyproject.toml asks for now; pins are kept
    python locks/lock.py --upgrade          # the newest releases that fit together
    python locks/lock.py --wheels FOLDER    # wheels from there count too, as torch's CPU builds
    python locks/lock.py --peers            # locks/peers.txt alone

writes

    requirements.lock   all that `dvc repro` imports: numbers follow from it
    locks/dev.txt       what the extras of EXTRAS add: tests, documentation, dashboard, SAELens
    locks/cuda.txt      what torch's CUDA build adds on Linux
    locks/peers.txt     what the libraries of PEERS add to requirements.lock: make bench-peers

pip resolves for the machine that it runs on. For each other system in TARGETS it is asked for a
file of every release that is no pure Python; a release without one is reported. Which packages a
system needs follows from their metadata; one that not every system needs is given a marker.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
BASE, DEV, CUDA = ROOT / "requirements.lock", ROOT / "locks/dev.txt", ROOT / "locks/cuda.txt"
PEER = ROOT / "locks/peers.txt"
PEERS = ("dictionary-learning", "eai-sparsify", "sae-lens")  # training steps beside ours
# no step imports it, and it brings torchvision, which only fits one build of torch
LEFT_OUT = {"nnsight"}
EXTRAS = ("dev", "docs", "dashboard", "saelens")
BUILD = ("setuptools>=77",)  # builds the package itself, and sdists
TORCH = "torch==2.13.0"
PYTHONS = ("3.11", "3.12", "3.13")
GLIBC = range(39, 4, -1)
SYSTEMS = {
    "linux-x86_64": ("linux", "Linux", "x86_64"),
    "linux-aarch64": ("linux", "Linux", "aarch64"),
    "macos-arm64": ("darwin", "Darwin", "arm64"),
}


@dataclass
class Release:
    """A version of a package, its own requirements, and the hashes of the files that fit."""

    name: str
    version: str
    requires: tuple[str, ...]
    pure: bool
    hashes: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Target:
    """A system and a version of Python."""

    system: str
    python: str

    @property
    def platforms(self) -> list[str]:
        """The platform tags of wheels that it installs, newest first."""
        if self.system == "macos-arm64":
            return [f"macosx_{n}_0_{arch}" for n in range(14, 10, -1)
                    for arch in ("arm64", "universal2")]  # fmt: skip
        machine = SYSTEMS[self.system][2]
        tags = [f"manylinux_2_{n}_{machine}" for n in GLIBC]
        return [*tags, f"manylinux2014_{machine}", f"manylinux2010_{machine}"]

    @property
    def environment(self) -> dict[str, str]:
        """The values of markers there."""
        sys_platform, system, machine = SYSTEMS[self.system]
        return {
            "implementation_name": "cpython", "os_name": "posix", "platform_machine": machine,
            "platform_python_implementation": "CPython", "platform_system": system,
            "python_version": self.python, "python_full_version": f"{self.python}.7",
            "sys_platform": sys_platform,
        }  # fmt: skip

    def __str__(self) -> str:
        return f"{self.system}, Python {self.python}"


TARGETS = tuple(Target(system, python) for system in SYSTEMS for python in PYTHONS)


def pip(*arguments: str) -> Iterator[dict[str, Any]]:
    """What `pip install` would install; CalledProcessError where there is nothing that fits."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed",
             "--use-feature=fast-deps", "--report", report, "--target", folder, *arguments],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        yield from json.loads(report.read_text())["install"]


def releases(*arguments: str) -> dict[str, Release]:
    """The same by name."""
    found = {}
    for item in pip(*arguments):
        about, file = item["metadata"], item["download_info"]["url"].rpartition("/")[2]
        name = canonicalize_name(about["name"])
        found[name] = Release(
            name,
            Version(about["version"]).public,
            tuple(about.get("requires_dist", ())),
            pure=not file.endswith(".whl") or file.endswith("-any.whl"),
            hashes={item["download_info"]["archive_info"]["hashes"]["sha256"]},
        )
    return found


def needed(
    known: dict[str, Release], roots: Iterable[str], target: Target
) -> tuple[set[str], set[str]]:
    """(names that `roots` need on a system, those of their requirements that are not known)."""
    todo = [(Requirement(root), "") for root in roots]
    names, missing, seen = set(), set(), set()
    while todo:
        requirement, asking = todo.pop()
        environment = {**target.environment, "extra": asking}
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        name = canonicalize_name(requirement.name)
        if name not in known:
            missing.add(f"{name}{requirement.specifier}")
            continue
        names.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                todo += [(Requirement(r), extra) for r in known[name].requires]
    return names, missing


def add_files(known: dict[str, Release], wanted: set[str], target: Target) -> list[str]:
    """Add the hashes of the files for a system to releases that differ by system; those without."""
    names = [name for name in sorted(wanted) if not known[name].pure]
    platforms = [f"--platform={tag}" for tag in target.platforms]
    options = ["--no-deps", "--only-binary=:all:", "--implementation=cp",
               f"--python-version={target.python}", *platforms]  # fmt: skip
    without = []
    while names:
        try:
            found = releases(*options, *(f"{name}=={known[name].version}" for name in names))
        except subprocess.CalledProcessError as error:
            refused = re.search(r"No matching distribution found for ([\w.-]+)==", error.stderr)
            if refused is None:
                raise SystemExit(error.stderr) from None
            without.append(canonicalize_name(refused[1]))
            names.remove(without[-1])
            continue
        for name, release in found.items():
            known[name].hashes |= release.hashes
        break
    return without


def add_wheels(known: dict[str, Release], folder: Path) -> None:
    """Add the hashes of wheels in `folder` of the same releases, local labels apart."""
    for path in sorted(folder.glob("*.whl")):
        name, version, _, _ = parse_wheel_filename(path.name)
        if name in known and known[name].version == version.public:
            known[name].hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())


def marker(wanting: set[Target]) -> str:
    """The condition under which a package is needed, from the systems and Pythons that want it."""
    if wanting == set(TARGETS):
        return ""
    clauses = []
    for system in SYSTEMS:
        pythons = [target.python for target in TARGETS if target in wanting
                   and target.system == system]  # fmt: skip
        sys_platform, _, machine = SYSTEMS[system]
        where = f'sys_platform == "{sys_platform}" and platform_machine == "{machine}"'
        if len(pythons) == len(PYTHONS):
            clauses.append(where)
        else:
            clauses += [f'{where} and python_version == "{python}"' for python in pythons]
    return " ; " + " or ".join(f"({clause})" for clause in clauses)


def text(title: str, names: set[str], known: dict[str, Release], wanting: dict[str, set[Target]],
         first: str = "") -> str:  # fmt: skip
    """A lock of `names`."""
    lines = [f"# {title} Written by `make lock`: see locks/lock.py.\n", first]
    for name in sorted(names):
        release = known[name]
        hashes = "".join(f" \\\n    --hash=sha256:{sha}" for sha in sorted(release.hashes))
        lines.append(f"{name}=={release.version}{marker(wanting[name])}{hashes}\n")
    return "".join(lines)


def resolved(keep: Iterable[str], roots: list[str]) -> dict[str, Release]:
    """The releases that `roots` need on all systems, with their files."""
    known = releases(*keep, *roots)
    for release in known.values():
        kept = [
            r for r in release.requires if canonicalize_name(Requirement(r).name) not in LEFT_OUT
        ]
        release.requires = tuple(kept)
    print(f"{len(known)} releases here", flush=True)
    # what other systems need besides
    while missing := set().union(*(needed(known, roots, t)[1] for t in TARGETS)):
        known |= releases(*keep, "--no-deps", *sorted(missing))
        print(f"elsewhere also: {', '.join(sorted(missing))}", flush=True)
    for target in TARGETS:
        wanted, _ = needed(known, roots, target)
        without = add_files(known, wanted, target)
        print(f"{target}: {', '.join(without) or 'a file of every release'}", flush=True)
    return known


def locked() -> list[str]:
    """The pins of the present locks, for pip to keep."""
    return [pin for path in (BASE, DEV, CUDA, PEER) if path.is_file() for pin in pins(path)]


def pins(path: Path) -> list[str]:
    """The releases of a lock as requirements."""
    return re.findall(r"^[\w.-]+==[^\s;\\]+", path.read_text(), re.M)


def main() -> None:
    """Write the locks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--upgrade", action="store_true", help="do not keep pins")
    parser.add_argument("--wheels", type=Path, action="append", default=[], help="more files")
    parser.add_argument("--peers", action="store_true", help="only locks/peers.txt")
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = [TORCH, *BUILD, *project["dependencies"]]
    dev = [r for extra in EXTRAS for r in project["optional-dependencies"][extra]]
    if not options.peers:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("" if options.upgrade else "\n".join(locked()))
            file.flush()
            known = resolved(("-c", file.name), [*base, *dev])
        for folder in options.wheels:
            add_wheels(known, folder)
        write(known, base, dev)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        # the base is that of the study, whether or not what it adds is newer
        file.write("\n".join(pins(BASE) if options.upgrade else locked()))
        file.flush()
        roots = [TORCH, *PEERS]
        write_peers(resolved(("-c", file.name), roots), roots)


def write_peers(known: dict[str, Release], roots: list[str]) -> None:
    """Write peers.txt, without what the base or torch's CUDA build needs."""
    before = {pin.partition("==")[0] for path in (BASE, CUDA) for pin in pins(path)}
    by_target = {t: needed(known, roots, t)[0] for t in TARGETS}
    wanting = {name: {t for t in TARGETS if name in by_target[t]} for name in known}
    names = set().union(*by_target.values()) - before
    title = "Other libraries that train SAEs: make bench-peers."
    PEER.write_text(text(title, names, known, wanting, "-r ../requirements.lock\n"))


def write(known: dict[str, Release], base: list[str], dev: list[str]) -> None:
    """Write the three files; torch's own requirements on Linux only stand in the third."""
    torch = known["torch"]
    cuda = {canonicalize_name(Requirement(r).name) for r in torch.requires if "Linux" in r}
    with_cuda = {t: needed(known, [*base, *dev], t)[0] for t in TARGETS}
    torch.requires = tuple(r for r in torch.requires
                           if canonicalize_name(Requirement(r).name) not in cuda)  # fmt: skip
    everything = {t: needed(known, [*base, *dev], t)[0] for t in TARGETS}
    for_numbers = set().union(*(needed(known, base, t)[0] for t in TARGETS))
    for_tests = set().union(*everything.values()) - for_numbers
    accelerated = set().union(*with_cuda.values()) - for_numbers - for_tests
    wanting = {name: {t for t in TARGETS if name in with_cuda[t]} for name in known}
    BASE.write_text(text("All that `dvc repro` imports.", for_numbers, known, wanting))
    DEV.write_text(text("Tests, documentation, dashboard, SAELens.", for_tests, known, wanting,
                        "-r ../requirements.lock\n"))  # fmt: skip
    CUDA.write_text(text("What torch's CUDA build needs on Linux.", accelerated, known, wanting,
                         "-r ../requirements.lock\n"))  # fmt: skip


if __name__ == "__main__":
    main()
