"""Judges: who says what a latent means, behind one interface.

    backend = open_backend(settings, record=Path("judge/answers.jsonl"))
    answers = backend.answer([Question(label(contexts), Sampling.of(settings))])
    labels, counts = read(answers, parse_label)

`http` asks a language model and records every answer, `replay` reads the record, `concepts` knows
the truth. Prompts are files in `prompts/`; `parsers` reads answers, `scores` counts them,
`documents` keeps what is explained apart from what is scored.
"""

from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.judges.concepts import ConceptsBackend, Truth, shares
from sae_repro.judges.contexts import Context
from sae_repro.judges.questions import Answer, Backend, Prompt, Question, Sampling
from sae_repro.judges.replay import ReplayBackend
from sae_repro.params import Judge

__all__ = [
    "Answer",
    "Backend",
    "ConceptsBackend",
    "Context",
    "Prompt",
    "Question",
    "ReplayBackend",
    "Sampling",
    "open_backend",
    "shares",
]


def open_backend(
    settings: Judge, *, record: Path, truth: Truth | None = None, command: str = "dvc repro"
) -> Backend:
    """The backend that `settings.kind` names.

    `record` is the file of recorded answers, `command` what records them, `truth` what the kind
    `concepts` looks up (see there); StudyError where a text without labels gives none.
    """
    if settings.kind == "http":
        # the client is loaded by those who ask
        from sae_repro.judges.http import HttpBackend

        return HttpBackend(settings, record)
    if settings.kind == "replay":
        return ReplayBackend(settings, record, command=command)
    if truth is None:
        raise StudyError(
            "judge.kind = concepts: this text has no labels to judge by; use stories, or kind: http"
        )
    return ConceptsBackend(settings, truth)
