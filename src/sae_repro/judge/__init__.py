"""Stage `judge`: what latents mean, by a judge, in artifacts/judge/<cell>.json.

A cell with several seeds has a file for each, <cell>/seed-<n>.json.

The judge labels the most and least selective latents, as the published grid had it done, and a
uniform sample of the alive ones; it explains some of these, and the explanations are scored on
other documents. Behind one interface: `http` asks a language model and records every answer in
judge/answers.jsonl, `replay` reads that record, `concepts` knows the truth.

    backend = open_backend(settings, record=ANSWERS)
    answers = backend.answer([Question(label(contexts), Sampling.of(settings))])
    labels, counts = read(answers, parse_label)

Prompts are files in `prompts/`; `parsers` reads answers, `scores` counts them, `documents` keeps
what is explained apart from what is scored.
"""

from pathlib import Path

from sae_repro.files import replacing_folder, write_json
from sae_repro.judge.backends import open_backend
from sae_repro.judge.backends.concepts import ConceptsBackend, shares
from sae_repro.judge.backends.replay import ReplayBackend
from sae_repro.judge.contexts import Context
from sae_repro.judge.questions import Answer, Backend, Prompt, Question, Sampling, Truth
from sae_repro.params import ANSWERS, Judge
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
    "shares",
]


def run(context: StageContext) -> None:
    """Write artifacts/judge; an endpoint is asked for what judge/answers.jsonl lacks."""
    from sae_repro.judge.study import judge_cells

    settings, seed = context.section(Judge, "judge"), context.value("seed")
    names = list(context.value("cells"))
    # an out must be there: without answers it is empty
    ANSWERS.parent.mkdir(exist_ok=True)
    ANSWERS.touch()
    judged = judge_cells(names, settings, seed, Path("artifacts"), ANSWERS)
    with replacing_folder(context.artifacts("judge")) as folder:
        for name, found in judged.items():
            write_json(folder / f"{name}.json", found)
