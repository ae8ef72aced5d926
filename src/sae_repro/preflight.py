"""Checks of a whole study before any compute: inputs unchanged, answers there, shapes that fit."""

import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from sae_repro.checkpoint.configuration import read_config, shape_of
from sae_repro.closure import code_digest
from sae_repro.errors import StudyError
from sae_repro.files import digest, read_object, write_json
from sae_repro.installation import SOURCE
from sae_repro.params import (
    ANSWERS,
    GIVEN,
    ActivationsSource,
    Cell,
    FilesSource,
    HereSubject,
    Judge,
    Study,
    in_stream,
    model_hook,
    shape_problems,
    width_problems,
)
from sae_repro.params.joint import hooks_in
from sae_repro.pins import (
    check_imports,
    check_model,
    check_prompt,
    pinned_activations,
    pinned_concepts,
    pinned_texts,
)
from sae_repro.readers.agreement import hook_problems
from sae_repro.readers.examination import Examined
from sae_repro.readers.given import read_given
from sae_repro.readers.row_start import token_id
from sae_repro.stage import STATE


def check_answers(judge: Judge, folder: Path) -> None:
    """StudyError where no answer is recorded and none can be requested."""
    path = folder / ANSWERS
    if judge.kind in ("concepts", "human") or (path.is_file() and path.read_bytes().strip()):
        return
    if judge.kind == "replay":
        raise StudyError(
            f"judge.kind = replay: {path} has no answers; fetch it (`dvc pull`), or record some "
            "with kind: http"
        )
    if judge.key_env is not None and not os.environ.get(judge.key_env, "").strip():
        raise StudyError(f"judge.key_env = {judge.key_env}: not set in the environment; export it")


def imported_widths(cells: Mapping[str, Cell], folder: Path) -> dict[str, int]:
    """D of each SAE that is imported from a folder, by cell.

    StudyError where one can't be read, rather than once `train` gets there. Releases of a hub are
    looked at when they are fetched.
    """
    widths = {}
    for name, cell in cells.items():
        if cell.import_ is not None and (folder / cell.import_).is_dir():
            # only these need PyTorch, which takes seconds to load
            from sae_repro.autoencoders.interchange import import_sae

            try:
                widths[name] = import_sae(folder / cell.import_).d_in
            except StudyError as error:
                raise StudyError(f"cells.{name}.import: {error}") from None
    return widths


def import_problems(widths: Mapping[str, int], d_in_of: Mapping[str, int | None]) -> list[str]:
    """A line for each imported SAE of another width than its hook's, where that is known."""
    return [
        f"cells.{name}.import: an SAE on {d_in} dimensions, the model has {expected}; import one "
        "that was trained on this model"
        for name, d_in in widths.items()
        if (expected := d_in_of.get(name)) and d_in != expected
    ]


def check_inputs(study: Study, folder: Path) -> None:
    """Check all pinned inputs of a study, its judge's answers, and that cells fit the model."""
    check_imports(study.cells, folder)
    widths = imported_widths(study.cells, folder)
    stated = {name: study.d_in_of(cell) for name, cell in study.cells.items()}
    if problems := import_problems(widths, stated):
        raise StudyError("\n".join(problems))
    check_answers(study.judge, folder)
    for name, prompt in study.judge.prompts.items():
        check_prompt(name, prompt, folder)
    if study.evaluate.concepts is not None:
        pinned_concepts(study.evaluate.concepts, folder).check()
    if isinstance(study.corpus.source, FilesSource):
        for file in pinned_texts(study.corpus.source, folder):
            file.check()
    if isinstance(study.corpus.source, ActivationsSource):
        _check_activations(study, study.corpus.source, folder)
    if isinstance(study.subject.source, HereSubject):
        _check_model(study, study.subject.source, folder, widths)


def _check_activations(study: Study, source: ActivationsSource, folder: Path) -> None:
    """StudyError where given activations have changed, can't be read, or cells don't fit them."""
    for file in pinned_activations(source, folder):
        file.check()
    width = read_given(source, folder).width
    if problems := list(width_problems(study, {GIVEN: width})):
        raise StudyError("\n".join(f"params.yaml: {line}" for line in problems))


def _check_model(
    study: Study, source: HereSubject, folder: Path, widths: Mapping[str, int]
) -> None:
    """StudyError where the study's own model can't be studied, or hooks and cells don't fit it."""
    path = check_model(source, folder)
    what = f"subject.source.path: {path}"
    shape = shape_of(read_config(path, what), what)
    problems = list(shape_problems(study, n_layers=shape.n_layers))
    context = study.extract.context
    if shape.positions and context > shape.positions:
        problems.append(f"extract.context = {context}: the model has {shape.positions} positions")
    if problems:
        raise StudyError("\n".join(f"params.yaml: {line}" for line in problems))
    hooks = study.extract.by_layer(shape.n_layers).model_hooks
    read = [hook for cell in study.cells.values() for hook in hooks_in(study.hook_of(cell))]
    stream = {model_hook(hook): shape.d_model for hook in read if in_stream(hook)}
    if problems := _misfits(study, stream, widths):
        raise StudyError("\n".join(f"params.yaml: {line}" for line in problems))
    found = _examined(path, what, hooks, source.sha256, folder / STATE / "examined")
    if problems := list(hook_problems(hooks, found.hooks)):
        raise StudyError("\n".join(f"params.yaml: extract: {line}" for line in problems))
    if problems := _misfits(study, found.widths, widths):
        raise StudyError("\n".join(f"params.yaml: {line}" for line in problems))
    if isinstance(study.extract.prepend_bos, str) and (path / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        try:
            token_id(Tokenizer.from_file(str(path / "tokenizer.json")), study.extract.prepend_bos)
        except StudyError as error:
            raise StudyError(f"params.yaml: {error}") from None


def _misfits(study: Study, d_in: Mapping[str, int], imported: Mapping[str, int]) -> list[str]:
    """A line for each cell that can't be on hooks so wide."""
    # those of imported SAEs, which read one hook
    of_cells = {name: d_in.get(model_hook(study.hook_of(c))) for name, c in study.cells.items()}
    return [*width_problems(study, d_in), *import_problems(imported, of_cells)]


def _examined(model: Path, what: str, hooks: tuple[str, ...], sha256: str, kept: Path) -> Examined:
    """The model's hooks; a model found sound stays so while it, its readers and their libraries do.

    What was found is a file in `kept`, with its hash, so that only the first check takes the
    model's time. On the CPU, whatever device the study names: a check runs where the study may not.
    """
    versions = {name: version(name) for name in ("torch", "transformers", "transformer-lens")}
    code = code_digest(SOURCE, "sae_repro.readers.examination")
    path = kept / f"{digest([sha256, sorted(hooks), versions, code])}.json"
    try:
        found = read_object(path)
        present = Examined(found["hooks"], found["widths"])
        if found["sha256"] == digest(present):
            return present
    except (StudyError, KeyError):
        pass
    from sae_repro.readers.examination import examine

    present = examine(model, what, hooks=hooks)
    with suppress(OSError):  # a study on a read-only disk is examined each time
        write_json(path, {"model": str(model), **present._asdict(), "sha256": digest(present)})
    return present
