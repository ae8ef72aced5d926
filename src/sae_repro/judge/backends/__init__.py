"""Which judge params.yaml names."""

from collections.abc import Mapping
from pathlib import Path

from sae_repro.judge.backends.concepts import ConceptsBackend
from sae_repro.judge.backends.replay import ReplayBackend
from sae_repro.judge.questions import Backend
from sae_repro.params import Judge


def open_backend(
    settings: Judge,
    *,
    record: Path,
    base: Mapping[str, float] | None = None,
    command: str = "dvc repro",
) -> Backend:
    """The backend that `settings.kind` names.

    `record` is the file of recorded answers, `command` what records them; `base` has the rate of
    each concept, which the kind `concepts` corrects for.
    """
    if settings.kind == "http":
        # the client is loaded by those who ask
        from sae_repro.judge.backends.http import HttpBackend

        return HttpBackend(settings, record)
    if settings.kind == "replay":
        return ReplayBackend(settings, record, command=command)
    return ConceptsBackend(settings, base or {})
