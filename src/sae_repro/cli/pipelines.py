"""The dvc.yaml of studies below the root: the root's, with the paths that lead there written out.

DVC reads a commit's files from git, where a link is no file: one study with a linked dvc.yaml, and
`dvc metrics diff`, `dvc exp show` and all else that reads a commit fail for the whole repository.
Nor is the way to the root a variable of params.yaml: DVC would resolve it at every start, a hundred
times a stage.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from sae_repro.cli.output import echo
from sae_repro.errors import StudyError
from sae_repro.files import write_text
from sae_repro.installation import PIPELINES
from sae_repro.params import check_section, read_yaml
from sae_repro.params.study import Loose

PIPELINE, TUNING = PIPELINES
STAGES = Path("stages")

_OF_THE_ROOT = re.compile(r"(?<!\S)\./")


def pipelines(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Pipelines to compare. Default: all of them.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Renew the copies that differ.")] = False,
) -> None:
    """Compare each studies/NAME/dvc.yaml with the root's.

    It is a copy of the root's, in which the paths that lead to the root are written out, because
    DVC reads no link in a commit; the same holds for a study's tune/dvc.yaml. After a change of the
    root's pipeline, --write renews the copies. Run it in the repository's root. Exit code 1 where a
    copy differs and is not renewed.

    Example: sae-repro pipelines --write
    """
    lines = list(renewed(paths or PIPELINES, write=write))
    echo("\n".join(lines) or "every study has the root's pipeline")
    raise typer.Exit(1 if lines and not write else 0)


def renewed(paths: Sequence[Path], *, write: bool) -> Iterator[str]:
    """A line for each pipeline of a study that differs from the root's; `write` renews it.

    Of a pipeline of the root in `paths`, all copies are compared. The working folder is the root;
    StudyError where it isn't.
    """
    for path in (Path(os.path.relpath(given)) for given in paths):
        if path in PIPELINES:
            text = _text(path)
            for study, copy in copies(Path()):
                if copy == path:
                    yield from _renewed(text, study, copy, write=write)
        else:
            original, study = _original(path)
            yield from _renewed(_text(original), study, original, write=write)


def _original(path: Path) -> tuple[Path, Path]:
    """(the pipeline of the root that `path` copies, the folder of its study)."""
    study, original = path.parent, PIPELINE
    if study.name == TUNING.parent.name and (study.parent / "params.yaml").is_file():
        study, original = study.parent, TUNING
    if path.name != PIPELINE.name or not (study / "params.yaml").is_file():
        raise StudyError(f"{path}: not found; name the {PIPELINE} of a study, seen from the root")
    return original, study


def _text(path: Path) -> str:
    if not path.is_file():
        raise StudyError(f"{path}: not found; run this in the repository's root")
    return path.read_text(encoding="utf-8")


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
                f"{study / path}: {fault}; renew it by `sae-repro pipelines --write {at}` in the "
                "repository's root, or those of all studies by `sae-repro pipelines --write`"
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


def _renewed(text: str, study: Path, path: Path, *, write: bool) -> Iterator[str]:
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
