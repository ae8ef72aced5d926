"""The frame of every stage script: declared parameters, one writer at a time, errors.

with stage("extract") as context:
    from sae_repro.extract import run
    run(context)
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_repro.closure import code_digest
from sae_repro.errors import StudyError, print_any_text
from sae_repro.files import digest, disk_fault, sha256_file
from sae_repro.garbage import collect_rarely
from sae_repro.installation import SOURCE, check_installation, check_recorded_code
from sae_repro.numerics.kernels import choose, in_use
from sae_repro.params import check_section, load, read_yaml
from sae_repro.params.base import S
from sae_repro.params.study import Loose

CHECKOUT = SOURCE.parent
STATE = Path(".sae-repro")  # local to this checkout: locks, checkpoints, the cell store
MISSING = object()  # no value of a parameter
ROLLING = STATE / "rolling"  # a round of `extract.buffer`, while cells are trained on it


@dataclass(frozen=True)
class StageContext:
    """A stage's own parameters and places; the working folder is the study's."""

    name: str
    declared: dict[str, Any]
    """Parameters that dvc.yaml declares for this stage, and no others."""
    root: Path = CHECKOUT
    """The repository's root: of the checkout, or the folder that `sae-repro init` made."""

    def section(self, schema: type[S], key: str) -> S:
        """The declared section `key` (dotted), validated; KeyError if dvc.yaml doesn't list it."""
        return check_section(schema, self._raw(key), within=key)

    def value(self, key: str) -> Any:
        """The declared value of `key` (dotted) of params.yaml, outside of any section.

        As the schema takes it, not as the file spells it: what follows from it, such as the key of
        a cell, is the same for `4` and `4.0`. KeyError if dvc.yaml doesn't list it.
        """
        top, *below = key.split(".")
        self._raw(key)
        value: Any = check_section(Loose, {top: self.declared[top]})
        value = value.model_dump(by_alias=True, exclude_unset=True)[top]
        for part in below:
            value = value[part]
        return value

    def _raw(self, key: str) -> Any:
        value: Any = self.declared
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise KeyError(f"stage {self.name} reads {key}, which dvc.yaml does not declare")
            value = value[part]
        return value

    def code(self, *modules: str) -> str:
        """Hash of what computes: the code that `modules` import, its libraries, their kernels."""
        lock = sha256_file(self.root / "requirements.lock")
        return digest([code_digest(SOURCE, *modules), lock, in_use()])

    def artifacts(self, stage: str) -> Path:
        """The folder that `stage` writes."""
        return Path("artifacts") / stage


@contextmanager
def stage(name: str, *, pipeline: Path = Path("dvc.yaml")) -> Iterator[StageContext]:
    """Run a block as the DVC stage `name`: one writer at a time.

    StudyError, Ctrl-C, a full disk or a refused path → one line, exit 2.
    `pipeline` is the file that declares the stage, seen from the study's folder.
    """
    if os.environ.get("DVC_STAGE", "").rpartition(":")[2] != name:
        target = name if pipeline == Path("dvc.yaml") else pipeline
        sys.exit(f"{name}: stages are run by DVC: dvc repro {target}")
    print_any_text()
    collect_rarely()
    try:
        _check_spelling(Path.cwd(), SOURCE)
        STATE.mkdir(exist_ok=True)
        # a fault anywhere in the study is reported now, not when its stage comes after an hour
        study = load("params.yaml")
        root = Path(study.root)
        check_installation(root, [name])
        check_recorded_code(root, name)
        _check_place(Path("artifacts"))
        choose(study.compute.bits)
        declared = declared_params(name, pipeline)
        files = _dependencies(name, pipeline)
        with _only_writer(name):
            yield StageContext(name, declared, root)
            _check_unchanged(name, pipeline, declared, files)
            check_recorded_code(root, name)
    except StudyError as error:
        sys.exit(_report(name, error))
    except KeyboardInterrupt:  # also one that follows another
        sys.exit(_report(name, StudyError("stopped from outside: run the same command to go on")))
    except Exception as error:
        if (line := disk_fault(error)) is None:
            raise
        sys.exit(_report(name, StudyError(line)))


def _check_place(artifacts: Path) -> None:
    """StudyError for a link out of the repository: DVC refuses what lies behind it, once made."""
    there, here = artifacts.resolve(), Path.cwd().resolve()
    tops = [folder for folder in (here, *here.parents) if (folder / ".git").exists()]
    if tops and not there.is_relative_to(tops[0]):
        raise StudyError(
            f"{artifacts}: a link to {there}, outside of the repository, where DVC records nothing;"
            " put a folder in its place: move the whole repository to that disk, or mount it here"
        )


def _check_spelling(*folders: Path) -> None:
    """StudyError for a folder whose name the locale can't spell: torch fails on it."""
    for folder in folders:
        if any("\udc80" <= letter <= "\udcff" for letter in str(folder)):
            raise StudyError(
                f"{folder}: has letters that this locale can't spell; set PYTHONUTF8=1, or choose "
                "a locale of UTF-8 (LC_ALL=C.UTF-8)"
            )


@contextmanager
def _only_writer(name: str) -> Iterator[None]:
    """Wait for a run of this stage that a stopped DVC left behind."""
    from filelock import FileLock, Timeout

    lock = FileLock(STATE / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{name}: another run of this stage has not finished; waiting", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _dependencies(name: str, pipeline: Path) -> dict[str, str]:
    """SHA-256 of the files, not the folders, that `pipeline` declares the stage to depend on."""
    paths = map(Path, read_yaml(pipeline)["stages"][name].get("deps", []))
    return {path.as_posix(): sha256_file(path) for path in paths if path.is_file()}


def _check_unchanged(
    name: str, pipeline: Path, declared: dict[str, Any], files: dict[str, str]
) -> None:
    """StudyError where what the stage was made from is no longer what is there.

    DVC reads parameters and files once the stage has ended: dvc.lock would name those of now.
    """
    now = declared_params(name, pipeline), _dependencies(name, pipeline)
    changed = [*_differing(declared, now[0]), *_differing(files, now[1])]
    if changed:
        more = f" and {len(changed) - 1} more" if changed[1:] else ""
        raise StudyError(
            f"{changed[0]}{more}: changed while the stage ran, so that its result is not recorded: "
            "dvc.lock would have it follow from what is there now; run `dvc repro` again"
        )


def _differing(was: dict[str, Any], now: dict[str, Any], within: str = "") -> Iterator[str]:
    """The dotted keys whose values differ."""
    for key in dict.fromkeys((*was, *now)):
        one, other = was.get(key, MISSING), now.get(key, MISSING)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differing(one, other, f"{within}{key}.")
        elif one != other:
            yield f"{within}{key}"


def declared_params(stage_name: str, pipeline: Path = Path("dvc.yaml")) -> dict[str, Any]:
    """The parameters that `pipeline` declares for the stage, and no others.

    The same as `dvc.api.params_show(stages=stage_name)`, without its second of start-up.
    """
    keys_by_file: dict[str, list[str]] = {}
    for item in read_yaml(pipeline)["stages"][stage_name]["params"]:
        # `key` is one of params.yaml, `{file: [key, …]}` are those of another
        files = item if isinstance(item, dict) else {"params.yaml": [item]}
        for file, keys in files.items():
            keys_by_file.setdefault(file, []).extend(keys)
    declared: dict[str, Any] = {}
    for file, keys in keys_by_file.items():
        raw = read_yaml(Path(file))
        for dotted in keys:
            try:
                _declare(declared, raw, dotted)
            except (KeyError, TypeError):
                raise StudyError(f"{file}: {dotted}: missing, and {pipeline} reads it") from None
    return declared


def _declare(declared: dict[str, Any], raw: dict[str, Any], dotted: str) -> None:
    *parents, last = dotted.split(".")
    source, target = raw, declared
    for parent in parents:
        source, target = source[parent], target.setdefault(parent, {})
    target[last] = source[last]


def _report(name: str, error: StudyError) -> int:
    for line in str(error).splitlines():
        print(f"{name}: {line}", file=sys.stderr)
    return 2
