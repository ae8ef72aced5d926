"""The human backend: questions as a sheet to fill in, and its answers read back.

judge/ratings.csv has a row per question that has no answer yet, judge/ratings.html is the same as a
form without a network, which saves ratings.csv. Rows stand in the order of their keys, hashes of
the questions: neither cell nor latent can be told from it. What is filled in goes into the record
of answers, as a model's would, and `replay` reads it; the sheet is then written anew with what is
left. Explanations come before the questions that score them, on a sheet of their own.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.files import write_text
from sae_repro.judge.backends.record import leave_record, read_answers, recording
from sae_repro.judge.protocol import Answer, Question, key_of
from sae_repro.params import Judge

CSV, FORM = "ratings.csv", "ratings.html"
COLUMNS = ("key", "prompt", "question", "answer")
HINTS = {
    "label": "a short label, or POLYSEMANTIC",
    "explain": "one sentence, at most 200 characters",
    "detect": "a 0 or 1 per numbered text: 1, 0, 1",
    "fuzz": "a 0 or 1 per numbered text: 1, 0, 1",
    "simulate": "a whole number from 0 to 10 per token: 0, 7, 0",
    "specificity": "one digit, 0 to 3",
}
"""What is to be answered, by prompt, where the form asks for it."""
_KEY = re.compile(r"[0-9a-f]{64}")
_LARGEST_FIELD = 10_000_000


class HumanBackend:
    """A backend that asks a person: `settings.model` is the name under which answers are kept."""

    def __init__(self, settings: Judge, record: Path, *, command: str = "dvc repro") -> None:
        assert settings.model is not None
        self._model = settings.model
        self._record = record
        self._command = command

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers that were filled in; StudyError where some are missing, with their sheet."""
        keyed = {key_of(self._model, question): question for question in questions}
        sheet = self._record.with_name(CSV)
        filled = read_sheet(sheet)
        leave_record(self._record)
        with recording(self._record) as recorder:
            for key, text in filled.items():
                if recorder.answers.get(key, Answer(text)) != Answer(text):
                    raise StudyError(
                        f"{sheet}: another answer to the question {key[:12]}… than the one in "
                        f"{self._record}; delete the row here, or the line with that key there"
                    )
                if key not in recorder.answers:
                    recorder.add(key, Answer(text))
        recorded = read_answers(self._record)
        missing = {key: keyed[key] for key in sorted(keyed.keys() - recorded.keys())}
        if missing:
            self._write(sheet, missing)
            raise StudyError(
                f"judge.kind = human: {len(missing)} of {len(keyed)} questions have no answer of "
                f"{self._model} yet; answer them in {sheet.with_name(FORM)} (open it in a browser; "
                f"it saves {CSV}, to be put beside it), or in the column `answer` of {sheet}, then "
                f"run `{self._command}` again; what is answered is kept"
            )
        return [recorded[key_of(self._model, question)] for question in questions]

    def _write(self, sheet: Path, missing: Mapping[str, Question]) -> None:
        rows = [(key, q.prompt.name, _spelled(q.prompt.text)) for key, q in missing.items()]
        write_text(sheet, sheet_text(rows))
        write_text(sheet.with_name(FORM), form_text(self._model, rows))


def _spelled(text: str) -> str:
    """`text` as UTF-8 can spell it: half a surrogate pair has no place in a file."""
    return text.encode("utf-8", "replace").decode("utf-8")


def sheet_text(rows: Sequence[tuple[str, str, str]]) -> str:
    """The sheet of (key, prompt, question), its answers empty."""
    text = io.StringIO()
    # a lone carriage return would else end a row where it is read
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    writer.writerows((*row, "") for row in rows)
    return text.getvalue()


def read_sheet(path: Path) -> dict[str, str]:
    """The answers of a filled sheet by key; none where there is no file.

    As spreadsheets save it, too: with a byte-order mark, or with semicolons or tabs. StudyError for
    a row without a key, or a second answer to one question.
    """
    if not path.is_file():
        return {}
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    csv.field_size_limit(_LARGEST_FIELD)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    if not {"key", "answer"} <= set(rows.fieldnames or ()):
        raise StudyError(f"{path}: needs the columns key and answer; delete it for a new sheet")
    answers: dict[str, str] = {}
    for row in rows:
        answer = (row["answer"] or "").strip()
        key = (row["key"] or "").strip()
        if not _KEY.fullmatch(key):
            raise StudyError(
                f"{path}:{rows.line_num}: not the key of a question; delete the file for a new "
                "sheet, in which you paste your answers"
            )
        if answer and answers.setdefault(key, answer) != answer:
            raise StudyError(f"{path}:{rows.line_num}: a second answer to one question; keep one")
    return answers


def form_text(rater: str, rows: Sequence[tuple[str, str, str]]) -> str:
    """The form of (key, prompt, question): one HTML file, no network, all text escaped."""
    # only a sheet needs Jinja
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sae_repro.judge", "backends"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    questions = [
        {"key": key, "prompt": prompt, "text": text, "hint": HINTS.get(prompt, "")}
        for key, prompt, text in rows
    ]
    form = environment.get_template("ratings.html.jinja")
    return form.render(rater=rater, questions=questions, columns=COLUMNS, file=CSV)
