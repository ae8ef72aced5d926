"""The dvc.yaml of studies below the root: copies of the root's, held equal to it.

DVC reads a commit's files from git, where a link is no file: one study with a linked dvc.yaml, and
`dvc metrics diff`, `dvc exp show` and all else that reads a commit fail for the whole repository.
"""

from collections.abc import Iterator
from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.files import write_text

PIPELINE = Path("dvc.yaml")
STAGES = Path("stages")


def check_copy(study: Path, root: Path) -> None:
    """StudyError unless dvc.yaml of the folder `study` is a file equal to that of `root`.

    A study at the root has the original.
    """
    if study.resolve() == root.resolve():
        return
    original, copy = root / PIPELINE, study / PIPELINE
    for path, there in ((original, original.is_file()), (root / STAGES, (root / STAGES).is_dir())):
        if not there:
            raise StudyError(
                f"params.yaml: root = {root}: no {path.name} there; name the repository's root"
            )
    fault = _fault(copy, original.read_text(encoding="utf-8"))
    if fault:
        raise StudyError(
            f"{copy}: {fault}; renew it by `cp {original} {copy}`, or, in the repository's root, "
            "those of all studies by `sae-repro deps --write`"
        )


def check_place(root: Path) -> None:
    """StudyError where DVC can't run: it formats the path of its cache as if it were a pattern."""
    place = str(root.resolve())
    if "{" in place or "}" in place:
        raise StudyError(
            f"{place}: DVC fails in a folder whose path has braces; rename it, or move the "
            "repository to another"
        )


def renewed(root: Path, text: str, *, write: bool) -> Iterator[str]:
    """A line for each study under `root`/studies whose dvc.yaml is no file that holds `text`.

    With `write`, it becomes one.
    """
    for copy in sorted(root.glob(f"studies/*/{PIPELINE}")):
        fault = _fault(copy, text)
        if fault:
            yield f"{copy}: {fault}"
            if write:
                copy.unlink()
                write_text(copy, text)


def _fault(copy: Path, text: str) -> str:
    """The difference of `copy` from a file that holds `text`; empty where there is none."""
    if copy.is_symlink():
        return "a link, which DVC can't read in a commit"
    if not copy.is_file():
        return "missing"
    return "" if copy.read_bytes() == text.encode() else "differs from the root's dvc.yaml"
