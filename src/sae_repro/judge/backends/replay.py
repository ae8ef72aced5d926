"""The replay backend: answers recorded earlier, byte for byte."""

from collections.abc import Sequence
from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.judge.backends.record import lines_without_answer, read_answers
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
        """The recorded answers; StudyError with the lines that hold none, or their missing number.

        A line without an answer comes from an earlier version, which recorded errors, too.
        """
        recorded = read_answers(self._record)
        keys = [key_of(self._model, question) for question in questions]
        needed = set(keys)
        if faulty := lines_without_answer(self._record, needed):
            number, what = faulty[0]
            others = f" (and {len(faulty) - 1} more such lines)" if len(faulty) > 1 else ""
            raise StudyError(
                f"{self._record}:{number}: no answer of the judge, but {what}{others}; set "
                f"judge.kind: http and run `{self._command}`, which drops such lines and asks "
                "their questions again, or delete the line and fetch a record that has the answer"
            )
        missing = len(needed - recorded.keys())
        if missing:
            raise StudyError(
                f"{self._record}: {missing} of {len(needed)} answers of {self._model} are missing; "
                f"fetch the file (`dvc pull`), or set judge.kind: http and run `{self._command}`, "
                "which records them"
            )
        return [recorded[key] for key in keys]
