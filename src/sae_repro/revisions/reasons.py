"""Reasons why results may differ: params, inputs, code, versions of libraries."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

from sae_repro.errors import StudyError
from sae_repro.installation import locked
from sae_repro.provenance import lock_hashes, read_lock
from sae_repro.revisions.snapshot import LIBRARIES, Snapshot, commits, head
from sae_repro.verify.causes import MADE, lock_params
from sae_repro.verify.locks import inputs

PIPELINE = ("corpus", "subject", "extract", "train", "evaluate", "judge", "control", "compare",
            "report", "track")  # fmt: skip
CODE = ("src", "stages", "code")
ABSENT = object()
"""In place of a parameter's value where it is not there."""
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Stage:
    """A stage of both revisions whose own code differs, by the paths that it depends on."""

    name: str
    changed: list[str]
    added: list[str]
    removed: list[str]
    of: int
    """Paths that it depends on in the later revision."""


@dataclass(frozen=True)
class Reasons:
    """What differs between two revisions of a study besides its results, as dvc.lock has it."""

    params: list[tuple[str, Any, Any]]
    """(path of the key, value before, value after). Not those of cells that are new or gone."""
    settings: Mapping[str, list[str]]
    """By cell, the settings that differ in it or its recipe; a cell without any is left out."""
    data: list[str]
    """Inputs of which the pinned hash, or the one in dvc.lock, is another."""
    code: list[Stage]
    stages_added: list[str]
    stages_removed: list[str]
    versions: list[tuple[str, str | None, str | None]]
    """(library, version before, version after)."""
    made_again: list[str]
    """Stages of both whose outputs have other bytes."""
    commits: list[str]
    """Those after the first revision that changed dvc.lock, the newest first."""

    def __bool__(self) -> bool:
        """Whether anything differs that can move a number."""
        return bool(self.params or self.data or self.code or self.versions)


def reasons(study: Path, before: Snapshot, after: Snapshot) -> Reasons:
    """Compare what two snapshots were made from; StudyError where a dvc.lock is damaged."""
    locks = [_lock(snapshot) for snapshot in (before, after)]
    params = list(_params(*map(lock_params, locks)))
    pins = [key for key, *values in params if any(map(_is_hash, values))]
    both = sorted((stage for stage in locks[1] if stage in locks[0]), key=_place)
    code, data = _inputs(
        [[inputs(lock, stage, at.code) for lock, at in zip(locks, (before, after), strict=True)]
         for stage in both], both
    )  # fmt: skip
    outs = [[lock_hashes(lock, stage)["outs"] for stage in both] for lock in locks]
    return Reasons(
        params=[change for change in params if change[0] not in pins],
        settings=_settings(lock_params(locks[1]), [key for key, *_ in params]),
        data=[*pins, *data],
        code=code,
        stages_added=sorted((s for s in locks[1] if s not in locks[0]), key=_place),
        stages_removed=sorted((s for s in locks[0] if s not in locks[1]), key=_place),
        versions=list(_versions(before.libraries, after.libraries)),
        made_again=[s for s, old, new in zip(both, *outs, strict=True) if old != new],
        commits=commits(study, before.commit or head(study), after.commit or "HEAD"),
    )


def _lock(snapshot: Snapshot) -> dict[str, Any]:
    try:
        return read_lock(snapshot.folder)
    except StudyError as error:
        place = f"{snapshot.name}: " if snapshot.commit else ""
        raise StudyError(place + str(error).replace(f"{snapshot.folder}/", "")) from None


def _place(stage: str) -> tuple[int, str]:
    return PIPELINE.index(stage) if stage in PIPELINE else len(PIPELINE), stage


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _params(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The keys that differ; of what is all new or all gone, its root alone."""
    parents = [{part for key in side for part in _above(key)} for side in (was, now)]
    seen = set()
    for key in [*now, *(key for key in was if key not in now)]:
        if key in was and key in now:
            if was[key] != now[key]:
                yield key, was[key], now[key]
            continue
        other = parents[key in was]
        root = next(part for part in _above(key) if part not in other)
        new = key in now
        if root in seen or (root.startswith("cells.") and root.count(".") == 1):
            continue
        seen.add(root)
        value = (now if new else was)[key] if root == key else {}
        yield (root, ABSENT, value) if new else (root, value, ABSENT)


def _settings(now: Mapping[str, Any], changed: list[str]) -> dict[str, list[str]]:
    cells = {key.split(".")[1] for key in now if key.startswith("cells.")}
    found = {}
    for cell in sorted(cells):
        own = [f"cells.{cell}."]
        if (recipe := now.get(f"cells.{cell}.recipe")) is not None:
            own.append(f"recipes.{recipe}.")
        if keys := [key for key in changed if f"{key}.".startswith(tuple(own))]:
            found[cell] = list(dict.fromkeys(key.split(".", 2)[-1] for key in keys))
    return found


def _above(key: str) -> Iterator[str]:
    """`a`, `a.b` and `a.b.c` of `a.b.c`."""
    return accumulate(key.split("."), lambda a, b: f"{a}.{b}")


def _inputs(
    hashes: Sequence[Sequence[Mapping[str, str]]], stages: Sequence[str]
) -> tuple[list[Stage], list[str]]:
    """The stages whose code differs, and the other inputs that do, in the pipeline's order.

    `hashes` are those of each stage's inputs before and after, by path.
    """
    code: list[Stage] = []
    data: dict[str, None] = {}
    for stage, (old, new) in zip(stages, hashes, strict=True):
        own = [{path for path in side if PurePosixPath(path).parts[0] in CODE}
               for side in (old, new)]  # fmt: skip
        changed = sorted(path for path in own[0] & own[1] if old[path] != new[path])
        if changed or own[0] != own[1]:
            added, removed = sorted(own[1] - own[0]), sorted(own[0] - own[1])
            code.append(Stage(stage, changed, added, removed, len(own[1])))
        for path in sorted(old.keys() | new.keys()):
            first = PurePosixPath(path).parts[0]
            if old.get(path) != new.get(path) and first not in (*CODE, *MADE, LIBRARIES):
                data[path] = None
    return code, list(data)


def _versions(was: Path, now: Path) -> Iterator[tuple[str, str | None, str | None]]:
    from packaging.utils import canonicalize_name

    # one library may be spelled in two ways: Jinja2, jinja2
    pins = [
        {canonicalize_name(name): pin for name, pin in locked(path).items()}
        if path.is_file()
        else {}
        for path in (was, now)
    ]
    for name in sorted(pins[0].keys() | pins[1].keys()):
        if all(pins) and pins[0].get(name) != pins[1].get(name):
            yield name, pins[0].get(name), pins[1].get(name)
