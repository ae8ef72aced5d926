"""The dvc.yaml of studies below the root: the root's, with the paths that lead there written out.

DVC reads a commit's files from git, where a link is no file: one study with a linked dvc.yaml, and
`dvc metrics diff`, `dvc exp show` and all else that reads a commit fail for the whole repository.
Nor is the way to the root a variable of params.yaml: DVC would resolve it at every start, a hundred
times a stage.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.files import write_text
from sae_repro.params import check_section, read_yaml
from sae_repro.params.study import Loose

PIPELINE = Path("dvc.yaml")
TUNING = Path("tune/dvc.yaml")
STAGES = Path("stages")

_OF_THE_ROOT = re.compile(r"(?<!\S)\./")


def seen_from(root: str, text: str) -> str:
    """`text` of a pipeline of the root as that of a study whose params.yaml names the root `root`.

    Every `./` that begins a word becomes `root`/, in a comment too.
    """
    return _OF_THE_ROOT.sub(f"{root}/", text)


def check_copy(study: Path, root: str) -> None:
    """StudyError unless dvc.yaml of the folder `study` is the root's, seen from there.

    So is tune/dvc.yaml, if it has one. `root` is what its params.yaml says; a study at the root has
    the originals.
    """
    place = study / root
    if study.resolve() == place.resolve():
        return
    original, scripts = place / PIPELINE, place / STAGES
    for path, there in ((original, original.is_file()), (scripts, scripts.is_dir())):
        if not there:
            raise StudyError(
                f"params.yaml: root = {place}: no {path.name} there; name the repository's root"
            )
    for path in _pipelines(study, place):
        fault = _fault(study / path, seen_from(root, (place / path).read_text(encoding="utf-8")))
        if fault:
            at = (study.resolve() / path).relative_to(place.resolve())
            raise StudyError(
                f"{study / path}: {fault}; renew it by `sae-repro deps --write {at}` in the "
                "repository's root, or those of all studies by `sae-repro deps --write`"
            )


def check_place(root: Path) -> None:
    """StudyError where DVC can't run: it formats the path of its cache as if it were a pattern."""
    place = str(root.resolve())
    if "{" in place or "}" in place:
        raise StudyError(
            f"{place}: DVC fails in a folder whose path has braces; rename it, or move the "
            "repository to another"
        )


def copies(root: Path) -> Iterator[tuple[Path, Path]]:
    """(folder of a study in `root`/studies, a pipeline of it that is the root's, seen from there).

    Studies deeper below are not among them.
    """
    for params in sorted(root.glob("studies/*/params.yaml")):
        yield from ((params.parent, path) for path in _pipelines(params.parent, root))


def copy_of(text: str, study: Path, root: Path) -> str:
    """`text` of a pipeline of the root, the folder `root`, as that of the folder `study`.

    StudyError where params.yaml there names another root.
    """
    path = study / "params.yaml"
    raw = read_yaml(path)
    stated = {key: raw[key] for key in ("root",) if key in raw}
    named: str = check_section(Loose, stated, source=str(path)).model_dump()["root"]
    if (study / named).resolve() != root.resolve():
        raise StudyError(f"{path}: root = {named}: is not {root.resolve()}; correct it")
    return seen_from(named, text)


def renewed(text: str, study: Path, path: Path, *, write: bool) -> Iterator[str]:
    """A line if the pipeline `path` of the folder `study` is no file that copies the root's `text`.

    With `write`, it becomes one. The working folder is the root.
    """
    right = copy_of(text, study, Path())
    fault = _fault(study / path, right)
    if fault:
        yield f"{study / path}: {fault}"
        if write:
            (study / path).unlink(missing_ok=True)
            write_text(study / path, right)


def _pipelines(study: Path, root: Path) -> Iterator[Path]:
    """The pipelines that a study at `study` shares with the root: its search need not be there."""
    yield PIPELINE
    if (root / TUNING).is_file() and os.path.lexists(study / TUNING):
        yield TUNING


def _fault(copy: Path, text: str) -> str:
    """The difference of `copy` from a file that holds `text`; empty where there is none."""
    if copy.is_symlink():
        return "a link, which DVC can't read in a commit"
    if not copy.is_file():
        return "missing"
    same = copy.read_bytes() == text.encode()
    return "" if same else "differs from the root's, with the paths that lead there"
