"""The replay backend: answers recorded earlier, byte for byte."""

from collections.abc import Sequence
from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.judge.backends.record import read_record
from sae_repro.judge.protocol import Answer, Question, key_of
from sae_repro.params import Judge


class ReplayBackend:
    """A backend that sends no request; `command` records answers with an http judge."""

    def __init__(self, settings: Judge, record: Path, *, command: str = "dvc repro") -> None:
        assert settings.model is not None
        self._model = settings.model
        self._record = record
        self._command = command

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """The recorded answers; StudyError with the number of missing ones."""
        recorded = read_record(self._record)
        keys = [key_of(self._model, question) for question in questions]
        needed = set(keys)
        missing = len(needed - recorded.keys())
        if missing:
            raise StudyError(
                f"{self._record}: {missing} of {len(needed)} answers of {self._model} are missing; "
                f"fetch the file (`dvc pull`), or set judge.kind: http and run `{self._command}`, "
                "which records them"
            )
        return [recorded[key] for key in keys]
