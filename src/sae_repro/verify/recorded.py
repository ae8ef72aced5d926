"""Comparison of a study's results with the recorded ones: those of git's HEAD.

git has reports/ and dvc.lock. An artifact is compared by its hash in dvc.lock, and DVC says whether
the files are still those of dvc.lock: it hashes again what changed in size or time.
"""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from sae_repro.contents import CONTENTS, Changed, examine
from sae_repro.errors import StudyError
from sae_repro.installation import CODE, changed_code, is_checkout
from sae_repro.params import read_yaml
from sae_repro.provenance import read_lock
from sae_repro.verify.causes import REQUIREMENTS, causes, root_of
from sae_repro.verify.files import PLACES, compare, files_below, verify
from sae_repro.verify.locks import Out, checksum, outs
from sae_repro.verify.machines import record
from sae_repro.verify.verdict import Difference, Verdict

ARTIFACTS, REPORTS = PLACES
LOCK = "dvc.lock"
COMPARE = "or compare with a folder: `sae-repro verify OTHER`"


def verify_recorded(study: Path) -> Verdict:
    """Compare a study's results with those of git's HEAD.

    StudyError where HEAD has none, or the study has not run to its end.
    """
    with tempfile.TemporaryDirectory() as folder:
        recorded = Path(folder)
        _extract_head(study, recorded)
        ours, theirs = read_lock(study), read_lock(recorded)
        stale, changed = _status(study)
        our_outs, their_outs = outs(ours), outs(theirs)
        verdict = _reports(study, recorded, {*our_outs, *their_outs})
        for path in sorted(our_outs.keys() | their_outs.keys()):
            if not _reported(path) and (difference := _artifact(path, our_outs, their_outs)):
                verdict.differences.append(difference)
        verdict.files += sum(out.files for path, out in our_outs.items() if not _reported(path))
        verdict.size += sum(out.size for path, out in our_outs.items() if not _reported(path))
        verdict.differences += [
            Difference(path, f"{what} since its stage made it; `dvc repro --force` makes it again")
            for path, what in changed.items()
        ]
        verdict.stale = stale
        if verdict.differences and not changed:
            verdict.causes = causes(study, recorded)
    return verdict


def verify_other(study: Path, other: Path) -> Verdict:
    """`verify` with the likely causes, as far as both folders have a dvc.lock that tells them."""
    verdict = verify(study, other)
    if verdict.differences and all((folder / LOCK).is_file() for folder in (study, other)):
        verdict.causes = causes(study, other)
    return verdict


def record_machine(study: Path, verdict: Verdict) -> str:
    """Add this machine, and how the study came out on it, to machines.csv; a line that says so."""
    with tempfile.TemporaryDirectory() as folder:
        _extract_head(study, Path(folder))
        recorded = checksum(read_lock(Path(folder)))
    result = verdict.size_of_differences() if verdict.differences else "identical"
    return record(study, recorded, checksum(read_lock(study)), result)


def _extract_head(study: Path, target: Path) -> None:
    """Write dvc.lock and reports/ of git's HEAD to `target`; StudyError where it has none.

    And the requirements.lock and code/ of the study's root, if they are there.
    """
    try:
        done = subprocess.run(
            ["git", "archive", "--format=tar", "HEAD", "--", LOCK, REPORTS],
            cwd=study, capture_output=True,
        )  # fmt: skip
    except OSError as error:
        raise StudyError(f"{study}: {error.strerror}: {error.filename}; {COMPARE}") from None
    if done.returncode:
        read_yaml(study / "params.yaml")  # a folder that is no study: that is the fault then
        reason = " ".join(done.stderr.decode(errors="replace").split())
        raise StudyError(
            f"{study}: no recorded study: git's HEAD has no {LOCK} and {REPORTS}/ here ({reason}); "
            f"`git add {LOCK} {REPORTS}` and `git commit` record what was made, {COMPARE}"
        )
    _unpack(done.stdout, target)
    root = root_of(study)
    for name in (REQUIREMENTS, CODE.name):  # an archive of several fails where one is missing
        done = subprocess.run(
            ["git", "archive", "--format=tar", "HEAD", "--", name], cwd=root, capture_output=True
        )
        if not done.returncode:
            _unpack(done.stdout, target)


def _unpack(archived: bytes, target: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archived)) as archive:
        for member in archive:
            if (file := archive.extractfile(member)) is not None:  # no folder
                path = target / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.read())


def _reports(study: Path, recorded: Path, places: set[str]) -> Verdict:
    """The outputs in reports/ compared file by file; other files there are nobody's results."""
    names = [
        {name for place in places if _reported(place) for name in files_below(folder, place)}
        for folder in (study, recorded)
    ]
    verdict = compare(study, recorded, *names)
    # a folder that is gone after the comparison is no help to the reader
    verdict.differences = [
        Difference(d.file, d.where.replace(str(recorded), "the recorded study"),
                   d.relative, d.numbers, d.largest, d.kind)
        for d in verdict.differences
    ]  # fmt: skip
    return verdict


def _reported(path: str) -> bool:
    return PurePosixPath(path).is_relative_to(REPORTS)


def _artifact(path: str, ours: Mapping[str, Out], theirs: Mapping[str, Out]) -> Difference | None:
    if path not in ours or path not in theirs:
        where = "not made here" if path in theirs else "not in the recorded study"
        return Difference(path, f"{where} ({LOCK})")
    if ours[path].hash == theirs[path].hash:
        return None
    return Difference(path, f"another hash in {LOCK}", kind="folder")


def _status(study: Path) -> tuple[list[str], dict[str, str]]:
    """Stages that would run again, and artifacts that are not as dvc.lock says: what happened."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json", "dvc.yaml"],
        cwd=study, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        reason = " ".join(done.stderr.split()) or " ".join(done.stdout.split())
        raise StudyError(f"{study}: `dvc status` fails: {reason}")
    stale: list[str] = []
    changed: dict[str, str] = {}
    for stage, faults in json.loads(done.stdout).items():
        for fault in faults:
            if not isinstance(fault, dict):
                continue
            for path, what in fault.get("changed outs", {}).items():
                if what == "not in cache":  # then DVC does not look at the files themselves
                    what = _without_cache(study / path)
                if what and not _reported(path):
                    changed[path] = what
            if "changed deps" in fault or "changed command" in faults:
                stale.append(stage.rpartition(":")[2])
    if is_checkout(root := root_of(study)):
        # of pipelines above this one, `dvc status` says nothing
        edited = changed_code(root).keys() & read_lock(study).keys()
        stale += sorted(edited - set(stale))
    if changed and set(changed.values()) == {"deleted"}:
        raise StudyError(
            f"{study / next(iter(changed))}: missing: nothing to compare; run `dvc repro` "
            f"first, or `dvc pull {study / 'dvc.yaml'}` where a DVC remote has the artifacts"
        )
    return stale, changed


def _without_cache(out: Path) -> str:
    """What happened to an output of which DVC's cache has no copy; empty for nothing."""
    if not out.exists():
        return "deleted"
    try:
        if (out / CONTENTS).is_file():
            examine(out)
    except Changed as fault:
        return fault.what
    return ""
