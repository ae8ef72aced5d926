"""A study's recorded results at a revision: read from git's objects, nothing is checked out."""

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.installation import CODE
from sae_repro.params import read_yaml

RESULTS = "reports/metrics.json"
READ = (RESULTS, "reports/tables", "params.yaml", "dvc.lock")
LIBRARIES = "requirements.lock"
WORKING_TREE = "the working tree"


@dataclass(frozen=True)
class Snapshot:
    """Files of a study as one revision has them."""

    name: str
    """How messages call it: the revision as it was asked for."""
    commit: str | None
    """None for the working tree."""
    folder: Path
    """Has `READ`, as far as the revision does."""
    libraries: Path
    """Its requirements.lock; may be missing."""
    code: Path
    """Its folder code/; may be missing."""


@contextmanager
def snapshot(study: Path, revision: str | None) -> Iterator[Snapshot]:
    """The study at `revision`, or in the working tree where it is None, while the block lasts.

    StudyError where git knows no such revision, or the study had no results then.
    """
    if revision is None:
        root = _root(study / "params.yaml", "")
        here = study / root
        found = Snapshot(WORKING_TREE, None, study, here / LIBRARIES, here / CODE)
        yield _with_results(found, study)
        return
    commit = _commit(study, revision)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _extract(study, commit, folder, *READ)
        root = _root(folder / "params.yaml", f"{revision}:")
        if (study / root).is_dir():
            _extract(study / root, commit, folder, LIBRARIES, CODE.name)
        found = Snapshot(revision, commit, folder, folder / LIBRARIES, folder / CODE)
        yield _with_results(found, study)


def commits(study: Path, since: str, until: str) -> list[str]:
    """`<hash> <subject>` of the commits after `since` that recorded the study, the newest first."""
    log = _git(study, "log", "--format=%h %s", f"{since}..{until}", "--", "dvc.lock")
    return log.stdout.decode(errors="replace").splitlines()


def head(study: Path) -> str:
    """The commit that is checked out."""
    return _commit(study, "HEAD")


def _with_results(found: Snapshot, study: Path) -> Snapshot:
    if not (found.folder / RESULTS).is_file():
        if not (found.folder / "params.yaml").is_file():
            read_yaml(study / "params.yaml")  # a folder that is no study: that is the fault then
        raise StudyError(
            f"{found.name}: {study / RESULTS} is missing: no results were recorded; `git log "
            f"--oneline -- {study / RESULTS}` lists the revisions that recorded some"
        )
    return found


def _commit(study: Path, revision: str) -> str:
    found = _git(study, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    if found.returncode:
        reason = " ".join(found.stderr.decode(errors="replace").split())
        raise StudyError(f"{revision}: no revision of {study.resolve()} ({reason})")
    return found.stdout.decode().strip()


def _extract(study: Path, commit: str, target: Path, *names: str) -> None:
    """Write what `commit` has of files and folders `names` of a folder to `target`."""
    # `git archive` refuses what is not there
    listed = _git(study, "ls-tree", "-r", "-z", "--name-only", commit, "--", *names)
    found = [name for name in listed.stdout.decode(errors="surrogateescape").split("\0") if name]
    if not found:
        return
    done = _git(study, "archive", "--format=tar", commit, "--", *found)
    if done.returncode:
        raise StudyError(f"{study}: {' '.join(done.stderr.decode(errors='replace').split())}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        # Python before 3.11.4 has no filter= of extractall; links are nothing that a study writes
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None:
                path = target / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())


def _root(params: Path, place: str) -> str:
    """The repository's root from the study, as its params.yaml has it."""
    if not params.is_file():
        return "."
    try:
        return str(read_yaml(params).get("root", "."))
    except StudyError as error:
        raise StudyError(str(error).replace(f"{params}", f"{place}params.yaml", 1)) from None


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True)
    except OSError as error:
        raise StudyError(f"{folder}: {error.strerror}: {error.filename}") from None
