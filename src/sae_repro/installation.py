"""The installed package and libraries of a study outside a checkout: recorded, and compared.

Such a study has no src/ that its stages could depend on. `sae-repro init` writes instead

    code/S.txt          the digest of the code that decides the output of stage S
    code/version.txt    the version of sae-repro that this code belongs to, for messages
    requirements.lock   the versions of the libraries that sae-repro needs

and a stage refuses to run with others: its output would not follow from what dvc.lock records.
"""

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from sae_repro import __version__
from sae_repro.closure import PACKAGE, code_digest
from sae_repro.errors import StudyError
from sae_repro.files import write_text

SOURCE = Path(__file__).resolve().parents[1]  # src of a checkout, or site-packages
PROJECT = "sae-repro"
CHECKED_OUT = Path("src")
CODE = Path("code")
VERSION = CODE / "version.txt"
LOCK = Path("requirements.lock")
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
    texts = {CODE / f"{stage}.txt": _code(stage) for stage in stages}
    texts[VERSION] = f"{__version__}\n"
    texts[LOCK] = "".join(f"{name}=={version}\n" for name, version in libraries().items())
    for path in sorted((root / CODE).glob("*.txt")):
        if path.relative_to(root) not in texts:
            path.unlink()
    for path, text in texts.items():
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text:
            write_text(root / path, text)
            yield path.as_posix()


def _code(stage: str) -> str:
    return f"{code_digest(SOURCE, f'{PACKAGE}.{stage}')}\n"


def check_installation(root: Path, stages: Iterable[str]) -> None:
    """StudyError where the study at `root` was made with other code or libraries than these.

    In a checkout, stages depend on src/ itself: the code that runs has to be the same.
    """
    if (root / CHECKED_OUT / PACKAGE).is_dir():
        _check_checkout(root / CHECKED_OUT, stages)
        return
    if not (root / CODE).is_dir():
        return
    changed = [
        stage
        for stage in stages
        if not (path := root / CODE / f"{stage}.txt").is_file()
        or path.read_text(encoding="utf-8") != _code(stage)
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
