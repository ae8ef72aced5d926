"""The code and libraries that a study's results follow from: recorded, and compared.

    code/S.txt          the code that decides the output of stage S: a hash of each module
    requirements.lock   the versions of the libraries that sae-repro needs

Stages depend on these files. In a checkout, DVC's stage `code` (code/dvc.yaml) writes code/ from
src/. A study outside one has no src/: `sae-repro init` writes both from what is installed, with
code/version.txt, the version of sae-repro that the code belongs to, for messages.

A stage refuses to run with others: its output would not follow from what dvc.lock records.
"""

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from sae_repro import __version__
from sae_repro.closure import PACKAGE, code_digest, code_listing
from sae_repro.errors import StudyError
from sae_repro.files import write_text
from sae_repro.params import read_yaml
from sae_repro.provenance import as_locked

SOURCE = Path(__file__).resolve().parents[1]  # src of a checkout, or site-packages
PROJECT = "sae-repro"
CHECKED_OUT = Path("src")
CODE = Path("code")
VERSION = CODE / "version.txt"
LOCK = Path("requirements.lock")
PIPELINES = (Path("dvc.yaml"), Path("tune/dvc.yaml"))
RENEW = "`sae-repro init --renew` records what is installed; stages that it decides run again"


def libraries() -> dict[str, str]:
    """Version by name of every installed distribution that sae-repro needs, itself apart.

    Without local labels (`+cpu`), which differ between machines that run the same release.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    todo, seen, found = [(PROJECT, "")], set(), {}
    while todo:
        name, extra = request = todo.pop()
        if request in seen:
            continue
        seen.add(request)
        installed = _distribution(name)
        if installed is None:  # an extra that is not installed, or not for this platform
            continue
        if name != PROJECT:
            found[name] = Version(installed.version).public
        for requirement in map(Requirement, installed.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = canonicalize_name(requirement.name)
                todo += [(needed, wanted) for wanted in ("", *requirement.extras)]
    return dict(sorted(found.items()))


def _distribution(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def record(root: Path, stages: Iterable[str]) -> Iterator[str]:
    """Write the files of `stages` and of the libraries into `root`; a line for each that changed.

    A file of a stage that is no longer there is deleted.
    """
    texts = {_file(stage): _code(stage, SOURCE) for stage in stages}
    texts[VERSION] = f"{__version__}\n"
    texts[LOCK] = "".join(f"{name}=={version}\n" for name, version in libraries().items())
    for path in sorted((root / CODE).glob("*.txt")):
        if path.relative_to(root) not in texts:
            path.unlink()
    for path, text in texts.items():
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text:
            write_text(root / path, text)
            yield path.as_posix()


def record_code(root: Path) -> None:
    """Write code/S.txt of every stage of the checkout at `root`."""
    for stage in _of_checkout(root):
        write_text(root / _file(stage), _code(stage, root / CHECKED_OUT))


def changed_code(root: Path) -> dict[str, list[str]]:
    """By stage of the checkout at `root`, the files whose code differs between src/ and code/S.txt.

    Stages of which nothing differs are left out. A file counts by its code, not by its comments.
    """
    if as_locked(root, "code", within=CODE):
        return {}
    found = {stage: _differing(root, stage) for stage in _of_checkout(root)}
    return {stage: files for stage, files in found.items() if files}


def stages_of(root: Path) -> list[str]:
    """The stages of the root's pipelines."""
    pipelines = [root / path for path in PIPELINES if (root / path).is_file()]
    return [stage for path in pipelines for stage in read_yaml(path)["stages"]]


def listed(text: str) -> dict[str, str]:
    """The hashes of a code/S.txt by path."""
    return {
        path: hashed for hashed, _, path in (line.partition("  ") for line in text.splitlines())
    }


def _of_checkout(root: Path) -> list[str]:
    """The stages S of which DVC awaits a code/S.txt, whether their pipelines are here or not."""
    outs = read_yaml(root / CODE / "dvc.yaml")["stages"]["code"]["outs"]
    return [Path(path).stem for out in outs for path in out]


def _differing(root: Path, stage: str) -> list[str]:
    path = root / _file(stage)
    was = listed(path.read_text(encoding="utf-8")) if path.is_file() else {}
    now = listed(_code(stage, root / CHECKED_OUT))
    return sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))


def _file(stage: str) -> Path:
    return CODE / f"{stage}.txt"


def _code(stage: str, source: Path) -> str:
    return code_listing(source, f"{PACKAGE}.{stage}")


def is_checkout(root: Path) -> bool:
    """Whether the folder has the code itself, so that its stages depend on that."""
    return (root / CHECKED_OUT / PACKAGE).is_dir()


def is_outside(root: Path) -> bool:
    """Whether the folder is one that `sae-repro init` made."""
    return (root / VERSION).is_file()


def check_installation(root: Path, stages: Iterable[str]) -> None:
    """StudyError where the study at `root` was made with other code or libraries than these.

    In a checkout, the code that runs has to be that of src/.
    """
    if is_checkout(root):
        _check_checkout(root / CHECKED_OUT, stages)
        return
    if not (root / CODE).is_dir():
        return
    changed = [
        stage
        for stage in stages
        if not (path := root / _file(stage)).is_file()
        or path.read_text(encoding="utf-8") != _code(stage, SOURCE)
    ]
    lines = []
    if changed:
        made = _first_line(root / VERSION)
        lines.append(
            f"{root / CODE}: made with the code of sae-repro {made}; the installed sae-repro "
            f"{__version__} has other code for {', '.join(changed)}"
        )
    installed = libraries()
    for name, version in locked(root / LOCK).items():
        if installed.get(name, version) != version:
            lines.append(f"{root / LOCK}: {name} {version}; installed is {installed[name]}")
    if lines:
        raise StudyError("\n".join([*lines, f"install those, or: {RENEW}"]))


def check_recorded_code(root: Path, stage: str) -> None:
    """StudyError where code/S.txt of a checkout is not of the code that runs now.

    As after `dvc repro --single-item`, which leaves out the stage `code`. Where there is no such
    file, DVC has refused already.
    """
    if not is_checkout(root) or not (root / _file(stage)).is_file():
        return
    if not as_locked(root, "code", within=CODE) and (files := _differing(root, stage)):
        raise StudyError(
            f"{root / _file(stage)}: not of the code in {root / CHECKED_OUT}: {files[0]}"
            f"{f' and {len(files) - 1} more' if files[1:] else ''}; `dvc repro {CODE}/dvc.yaml` in "
            "the root renews it"
        )


def _check_checkout(source: Path, stages: Iterable[str]) -> None:
    """StudyError where the package in use lies elsewhere and has other code than that in `source`.

    dvc.lock would name the code in `source`, and the outputs would be another's.
    """
    if source.resolve() == SOURCE:
        return
    changed = [
        s
        for s in stages
        if code_digest(source, f"{PACKAGE}.{s}") != code_digest(SOURCE, f"{PACKAGE}.{s}")
    ]
    if changed:
        raise StudyError(
            f"{source}: has other code for {', '.join(changed)} than {SOURCE / PACKAGE}, which "
            "Python imports; install this checkout (`pip install --no-deps -e .` in its root), or "
            "set PYTHONPATH to its src"
        )


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else "(unknown)"


def locked(path: Path) -> dict[str, str]:
    """Version by name in a lock; StudyError where there is none."""
    if not path.is_file():
        raise StudyError(f"{path}: no such file; {RENEW}")
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", path.read_text(encoding="utf-8"), re.M))
