"""Stage `judge`: labels of latents by a judge, and scored explanations, in artifacts/judge.

A file per cell, <cell>.json; where it has several seeds, a file for each, <cell>/seed-<n>.json.

The judge labels the most and least selective latents, as in the published grid, and a uniform
sample of the alive ones; it explains some of these, and the explanations are scored on other
documents. One interface, four backends: `http` asks a language model and records every answer in
judge/answers.jsonl, `human` a person by a sheet, `replay` reads that record, `concepts` reads the
ground truth.

    backend = open_backend(settings, record=ANSWERS)
    answers = backend.answer([Question(prompt, Sampling.of(settings))])
    labels, counts = read(answers, parse_label)

`protocol` has the interface, `prompts` the templates, `parsers` reads answers, `scores` has a row
per score, `latent_windows` keeps explaining and scoring documents apart.
"""

from pathlib import Path

from sae_repro.contents import check, sealed_folder
from sae_repro.files import write_json
from sae_repro.judge.backends import open_backend
from sae_repro.judge.backends.concepts import ConceptsBackend
from sae_repro.judge.backends.record import leave_record
from sae_repro.judge.backends.replay import ReplayBackend
from sae_repro.judge.prompts.fence import Context
from sae_repro.judge.protocol import Answer, Backend, Prompt, Question, Sampling, Truth
from sae_repro.params import ANSWERS, Evaluate, Judge, read_cells
from sae_repro.pins import pinned_concepts
from sae_repro.stage import StageContext

__all__ = [
    "Answer",
    "Backend",
    "ConceptsBackend",
    "Context",
    "Prompt",
    "Question",
    "ReplayBackend",
    "Sampling",
    "Truth",
    "open_backend",
    "run",
]


def run(context: StageContext) -> None:
    """Write artifacts/judge; an endpoint gets the questions that judge/answers.jsonl lacks."""
    from sae_repro.judge.shares import judge_in_shares

    study = Path()
    for stage in ("corpus", "train", "evaluate"):
        check(context.artifacts(stage))
    check(context.artifacts("extract"), "manifest.json")
    settings, seed = context.section(Judge, "judge"), context.value("seed")
    cells = read_cells(context.value("recipes"), context.value("cells"))
    own = context.section(Evaluate, "evaluate").concepts
    spans = pinned_concepts(own, study) if own and settings.kind == "concepts" else None
    results = judge_in_shares(cells, settings, seed, study, ANSWERS, spans)
    leave_record(ANSWERS)
    with sealed_folder(context.artifacts("judge")) as folder:
        for name, result in results.items():
            write_json(folder / f"{name}.json", result)
