"""Checks of a whole study before any compute: inputs unchanged, answers there, shapes that fit."""

import os
from collections.abc import Mapping
from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.files import read_json
from sae_repro.params import ANSWERS, Cell, FilesSource, Judge, LocalSubject, Study, shape_problems
from sae_repro.pins import (
    check_imports,
    check_model,
    check_prompt,
    pinned_concepts,
    pinned_texts,
)


def check_answers(judge: Judge, folder: Path) -> None:
    """StudyError where no answer is recorded and none can be requested."""
    path = folder / ANSWERS
    if judge.kind == "concepts" or (path.is_file() and path.read_bytes().strip()):
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


def width_problems(widths: Mapping[str, int], d_model: int | None) -> list[str]:
    """A line for each imported SAE of another width than the model's."""
    return [
        f"cells.{name}.import: an SAE on {d_in} dimensions, the model has {d_model}; import one "
        "that was trained on this model"
        for name, d_in in widths.items()
        if d_model and d_in != d_model
    ]


def check_inputs(study: Study, folder: Path) -> None:
    """Check all pinned inputs of a study, its judge's answers, and that cells fit the model."""
    check_imports(study.cells, folder)
    widths = imported_widths(study.cells, folder)
    source, training = study.subject.source, study.subject.training
    stated = source.d_model if source.kind == "hub" else training.d_model if training else None
    if problems := width_problems(widths, stated):
        raise StudyError("\n".join(problems))
    check_answers(study.judge, folder)
    for name, prompt in study.judge.prompts.items():
        check_prompt(name, prompt, folder)
    if study.evaluate.concepts is not None:
        pinned_concepts(study.evaluate.concepts, folder).check()
    if isinstance(study.corpus.source, FilesSource):
        for file in pinned_texts(study.corpus.source, folder):
            file.check()
    if isinstance(study.subject.source, LocalSubject):
        config = read_json(check_model(study.subject.source, folder) / "config.json")
        d_model = config.get("hidden_size") or config.get("n_embd")
        n_layers = config.get("num_hidden_layers") or config.get("n_layer")
        positions = config.get("max_position_embeddings") or config.get("n_positions")
        problems = list(shape_problems(study, d_model=d_model, n_layers=n_layers))
        problems += width_problems(widths, d_model)
        if positions and study.extract.context > positions:
            problems.append(
                f"extract.context = {study.extract.context}: the model has {positions} positions"
            )
        if problems:
            raise StudyError("\n".join(f"params.yaml: {line}" for line in problems))
