"""Likely causes of other results: from what two dvc.lock record, and from this machine."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from sae_repro.installation import CODE, locked
from sae_repro.params import read_yaml
from sae_repro.provenance import read_lock
from sae_repro.verify.locks import checksum, inputs
from sae_repro.verify.machines import bits_of, confirmed, this_machine

REQUIREMENTS = "requirements.lock"
MADE = ("artifacts", "reports", "judge")
"""Folders of what stages make: other inputs from there follow from another cause."""
NAMED = 3


def causes(study: Path, other: Path) -> list[str]:
    """The likely causes why results of `study` differ from those of `other`, the likeliest first.

    `other` needs to have no more than a dvc.lock; a requirements.lock and code/ tell more.
    """
    ours, theirs = read_lock(study), read_lock(other)
    code, pins = _inputs([(ours, root_of(study) / CODE), (theirs, root_of(other) / CODE)])
    found = []
    if changed := list(_params(ours, theirs)):
        found.append(f"other params: {_few(changed)}")
    if code:
        found.append(f"other code: {_few(code)}")
    if pins:
        changes = list(_pins_between(study, other)) or [f"{REQUIREMENTS} differs"]
        found.append(f"other versions of libraries: {_few(changes)}")
    if unpinned := list(_unpinned(study)):
        found.append(f"other versions of libraries: {_few(unpinned)}")
    if not (changed or code or pins):  # otherwise the machine would be a guess
        found += _machine(study, checksum(theirs))
    return found or ["none known: same params, code and versions, on a confirmed kind of machine"]


def _few(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _params(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """The keys of parameters that differ, each once."""
    left, right = lock_params(ours), lock_params(theirs)
    for key in sorted(left.keys() | right.keys()):
        if key not in left or key not in right or left[key] != right[key]:
            yield key


def lock_params(lock: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a dvc.lock records, by their path: `recipes.topk.lr`."""
    return dict(pair for entry in lock.values() for pair in _flat(entry.get("params", {})))


def _flat(files: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    todo = [(str(key), value) for values in files.values() for key, value in values.items()]
    for key, value in todo:
        if isinstance(value, dict) and value:
            todo += [(f"{key}.{inner}", part) for inner, part in value.items()]
        else:
            yield key, value


def _inputs(sides: Sequence[tuple[Mapping[str, Any], Path]]) -> tuple[list[str], bool]:
    """Code that differs, as `src/… (stage)`, each once; and whether pinned versions differ.

    `sides` are two locks, each with the folder code/ beside it.
    """
    code: dict[str, str] = {}
    pins = False
    ours, theirs = (lock for lock, _ in sides)
    for stage in [name for name in theirs if name in ours]:
        hashes = [inputs(lock, stage, folder) for lock, folder in sides]
        for path in sorted(hashes[0].keys() | hashes[1].keys()):
            if hashes[0].get(path) == hashes[1].get(path):
                continue
            if PurePosixPath(path).name == REQUIREMENTS:
                pins = True
            elif PurePosixPath(path).parts[0] not in MADE:
                code.setdefault(path, stage)
    return [f"{path} ({stage})" for path, stage in code.items()], pins


def _pins_between(study: Path, other: Path) -> Iterator[str]:
    """Libraries of which two requirements.lock pin different versions."""
    ours, theirs = _pinned(study), _pinned(other)
    for name in sorted(ours.keys() | theirs.keys()) if ours and theirs else ():
        if ours.get(name) != theirs.get(name):
            yield f"{name} {ours.get(name, 'none')} (there: {theirs.get(name, 'none')})"


def _pinned(study: Path) -> dict[str, str]:
    """Version by name in requirements.lock of a study's root; empty where there is none."""
    path = root_of(study) / REQUIREMENTS
    return locked(path) if path.is_file() else {}


def root_of(study: Path) -> Path:
    """The repository's root that params.yaml of a study names; the folder itself without one."""
    params = study / "params.yaml"
    return study / str(read_yaml(params).get("root", ".") if params.is_file() else ".")


def _unpinned(study: Path) -> Iterator[str]:
    """Installed libraries of another version than the one in requirements.lock."""
    for name, pinned in sorted(_pinned(study).items()):
        try:
            installed = version(name)
        except PackageNotFoundError:  # not for this platform
            continue
        if installed.partition("+")[0] != pinned.partition("+")[0]:
            yield f"{name} {installed} (pinned: {pinned})"


def _machine(study: Path, recorded: str) -> Iterator[str]:
    machine = this_machine(bits_of(study))
    if machine.processor_id in confirmed(study, recorded):
        return
    name = machine.processor or "this processor"
    if machine.bits == "native":
        yield f"native bits, which follow the processor: {name}"
    elif not {"avx2", "fma"} <= set(machine.instruction_sets.split()):
        yield f"a processor without AVX2 and FMA: {name}"
    else:
        yield f"a kind of machine not confirmed yet: {name}"
