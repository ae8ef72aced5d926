"""Checks of a whole study before any compute: inputs unchanged, answers there, shapes that fit."""

import os
from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.files import read_json
from sae_repro.params import ANSWERS, FilesSource, Judge, LocalSubject, Study, shape_problems
from sae_repro.pins import check_concepts, check_files, check_imports, check_model, check_prompt


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


def check_inputs(study: Study, folder: Path) -> None:
    """Check all pinned inputs of a study, its judge's answers, and that cells fit the model."""
    check_imports(study.cells, folder)
    check_answers(study.judge, folder)
    for name, prompt in study.judge.prompts.items():
        check_prompt(name, prompt, folder)
    if study.evaluate.concepts is not None:
        check_concepts(study.evaluate.concepts, folder)
    if isinstance(study.corpus.source, FilesSource):
        check_files(study.corpus.source, folder)
    if isinstance(study.subject.source, LocalSubject):
        config = read_json(check_model(study.subject.source, folder) / "config.json")
        d_model = config.get("hidden_size") or config.get("n_embd")
        n_layers = config.get("num_hidden_layers") or config.get("n_layer")
        positions = config.get("max_position_embeddings") or config.get("n_positions")
        problems = list(shape_problems(study, d_model=d_model, n_layers=n_layers))
        if positions and study.extract.context > positions:
            problems.append(
                f"extract.context = {study.extract.context}: the model has {positions} positions"
            )
        if problems:
            raise StudyError("\n".join(f"params.yaml: {line}" for line in problems))
