"""The code that a pipeline's stages depend on: what they import, written into its dvc.yaml."""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from sae_repro.cli.pipelines import PIPELINE, TUNING, copies, renewed
from sae_repro.closure import PACKAGE, dependencies
from sae_repro.errors import StudyError
from sae_repro.files import write_text

CODE = "./src/"
LOCK = "./requirements.lock"
PIPELINES = (PIPELINE, TUNING)


def update(pipelines: Sequence[Path], *, write: bool) -> Iterator[str]:
    """A line for each dependency that stages of `pipelines` lack, or list and don't import.

    Of a pipeline of the root, also one for each study whose copy of it differs; of a study's, one
    if it does. With `write`, the files are corrected. The working folder is the repository's root;
    StudyError where it isn't.
    """
    for path in (Path(os.path.relpath(given)) for given in pipelines):
        if path in PIPELINES:
            text = yield from _updated(path, write=write)
            for study, copy in copies(Path()):
                if copy == path:
                    yield from renewed(text, study, copy, write=write)
        else:
            original, study = _original(path)
            yield from renewed(_text(original), study, original, write=write)


def _updated(path: Path, *, write: bool) -> Generator[str, None, str]:
    """The lines of a pipeline of the root; returns its text, corrected with `write`."""
    source = Path("src")
    if not (source / PACKAGE).is_dir():
        raise StudyError(f"{source / PACKAGE}: not found; run this in the repository's root")
    before = _text(path)
    after = with_imported_code(before, source)
    listed, imported = code_of(before), code_of(after)
    for stage in listed:
        for sign, deps in (
            ("-", listed[stage] - imported[stage]),
            ("+", imported[stage] - listed[stage]),
        ):
            yield from (f"{path}: {stage}: {sign} {dep}" for dep in sorted(deps))
    if write and after != before:
        write_text(path, after)
    return after if write else before


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


def code_of(text: str) -> dict[str, set[str]]:
    """The code in `deps` of each stage in the dvc.yaml `text`."""
    return {
        stage: {dep for dep in entry["deps"] if _is_code(dep)}
        for stage, entry in YAML().load(text)["stages"].items()
    }


def with_imported_code(
    text: str, source: Path, starts: Mapping[str, Sequence[str]] | None = None
) -> str:
    """`text` of a dvc.yaml, the code in each stage's `deps` replaced by what the stage imports.

    Stage S starts at the package S, or at the modules that `starts` has for it; `source` is the
    folder in which the package lies.
    """

    def imported(stage: str) -> list[str]:
        modules = (starts or {}).get(stage, (f"{PACKAGE}.{stage}",))
        paths = dependencies(source, *modules)
        return [f"{CODE}{path.relative_to(source).as_posix()}" for path in paths]

    return with_code(text, imported)


def with_code(text: str, code: Callable[[str], Sequence[str]]) -> str:
    """`text` of a dvc.yaml, the code in each stage's `deps` replaced by `code` of the stage.

    Every other line is kept to the byte. StudyError where a stage has no `deps` in lines of their
    own.
    """
    lines = text.splitlines(keepends=True)
    # from the last stage up, so that the numbers of the lines above it stay true
    for stage, entry in reversed(list(YAML().load(text)["stages"].items())):
        deps = entry.get("deps")
        if not deps or deps.fa.flow_style():
            raise StudyError(f"dvc.yaml: {stage}: needs `deps`, each in a line of its own")
        _replace(lines, deps, code(stage))
    return "".join(lines)


def _replace(lines: list[str], deps: Any, code: Sequence[str]) -> None:
    """Put `code` into `lines` in place of that in `deps`; what stays keeps its line's comment."""
    first = deps.lc.item(0)[0]
    numbers = {dep: deps.lc.item(i)[0] for i, dep in enumerate(deps) if isinstance(dep, str)}
    old = {dep: number for dep, number in numbers.items() if _is_code(dep)}
    if set(old) == set(code):
        return
    if not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    indent = lines[first].partition("-")[0]
    new = [lines[old[dep]] if dep in old else f"{indent}- {dep}\n" for dep in code]
    place = min(old.values()) if old else numbers[LOCK] + 1 if LOCK in numbers else first
    for number in sorted(old.values(), reverse=True):
        del lines[number]
    lines[place:place] = new


def _is_code(dep: object) -> bool:
    return isinstance(dep, str) and dep.startswith(CODE)
