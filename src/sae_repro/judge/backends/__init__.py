"""The judge's backends: ground-truth concepts, an HTTP endpoint, a person, a replay of answers."""

from collections.abc import Mapping
from pathlib import Path

from sae_repro.judge.backends.concepts import ConceptsBackend
from sae_repro.judge.backends.human import HumanBackend
from sae_repro.judge.backends.replay import ReplayBackend
from sae_repro.judge.protocol import Backend
from sae_repro.params import Judge


def open_backend(
    settings: Judge,
    *,
    record: Path,
    base_rates: Mapping[str, float] | None = None,
    command: str = "dvc repro",
) -> Backend:
    """The backend that `settings.kind` names.

    `record` is the file of recorded answers, `command` the one that records them; `base_rates` has
    the rate of each concept, for which the kind `concepts` corrects.
    """
    if settings.kind == "http":
        # only this kind needs the HTTP client
        from sae_repro.judge.backends.http import HttpBackend

        return HttpBackend(settings, record)
    if settings.kind == "human":
        return HumanBackend(settings, record, command=command)
    if settings.kind == "replay":
        return ReplayBackend(settings, record, command=command)
    return ConceptsBackend(settings, base_rates or {})
