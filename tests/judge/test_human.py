"""A person as the judge: the sheet and the form of the questions, and their answers read back."""

import csv
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.errors import StudyError
from sae_repro.judge import Prompt, Question, open_backend
from sae_repro.judge.backends.human import COLUMNS, form_text, read_sheet, sheet_text
from sae_repro.judge.backends.record import read_answers
from sae_repro.judge.protocol import key_of
from sae_repro.params import Judge

from ..track.chromium import Chromium, installed

HOSTILE = (
    "</pre></textarea><script>alert(1)</script>", "</style><img src=x onerror=alert(1)>",
    '"quoted", with; separators\tand\nlines', "{{ 7 * 7 }} {% raw %}", "\u202eright to left\u2066",
    "🙂 emoji", "half a pair \ud83d here", "=HYPERLINK(1)", "x" * 10_000,
)  # fmt: skip
KEY = "0" * 63


def question(text: str, name: str = "label") -> Question:
    return Question(Prompt(name, 1, text))


def human(folder: Path) -> "tuple[Judge, Path]":
    return Judge(kind="human", model="anna"), folder / "judge/answers.jsonl"


def fill(sheet: Path, answers: dict[str, str], *, delimiter: str = ",", mark: str = "") -> None:
    """As a person or a spreadsheet does: the same rows, some with an answer, by question."""
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter=delimiter)
    writer.writeheader()
    writer.writerows({**row, "answer": answers.get(row["question"], "")} for row in rows)
    sheet.write_bytes((mark + text.getvalue()).encode())


class Inputs(HTMLParser):
    """Names of a form's inputs, the texts of its questions, and all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = tag == "pre"
        if tag == "pre":
            self.texts.append("")
        if tag == "input":
            self.names.append(str(dict(attrs)["name"]))

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[-1] += data


def test_questions_become_a_sheet_and_answers_a_record_that_replays(tmp_path: Path) -> None:
    asked = [question("first"), question("second", "explain"), question("first")]
    given_settings, record = human(tmp_path)
    with pytest.raises(StudyError, match=r"2 of 2 questions have no answer of anna.*ratings\.html"):
        open_backend(given_settings, record=record).answer(asked)
    sheet = record.with_name("ratings.csv")
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == sorted(key_of("anna", q) for q in asked[:2])
    assert {(row["prompt"], row["question"]) for row in rows} == {
        ("label", "first"), ("explain", "second")
    }  # fmt: skip

    fill(sheet, {"first": "names of people"})
    with pytest.raises(StudyError, match="1 of 2 questions"):
        open_backend(given_settings, record=record).answer(asked)
    with sheet.open(newline="") as file:
        assert [row["question"] for row in csv.DictReader(file)] == ["second"], "what is left"

    fill(sheet, {"second": "fires on “names”, always"})
    answers = open_backend(given_settings, record=record).answer(asked)
    assert [a.text for a in answers] == [
        "names of people", "fires on “names”, always", "names of people"
    ]  # fmt: skip
    sheet.unlink()
    replay = Judge(kind="replay", model="anna")
    assert open_backend(replay, record=record).answer(asked) == answers


@pytest.mark.parametrize(("delimiter", "mark"), [(",", "\ufeff"), (";", ""), ("\t", "\ufeff")])
def test_a_spreadsheet_s_own_way_of_saving_is_read(
    delimiter: str, mark: str, tmp_path: Path
) -> None:
    given_settings, record = human(tmp_path)
    asked = [question("a, b; c\nd")]
    with pytest.raises(StudyError):
        open_backend(given_settings, record=record).answer(asked)
    fill(record.with_name("ratings.csv"), {"a, b; c\nd": " yes, \"so\" "}, delimiter=delimiter,
         mark=mark)  # fmt: skip
    (answer,) = open_backend(given_settings, record=record).answer(asked)
    assert answer.text == 'yes, "so"'


@settings(max_examples=20, deadline=None)
@given(texts=st.lists(st.sampled_from(HOSTILE) | st.text(max_size=30), min_size=1, max_size=4))
def test_any_text_is_shown_as_it_is_and_nothing_of_it_is_markup(texts: list[str]) -> None:
    spelled = [text.encode("utf-8", "replace").decode() for text in texts]
    rows = [(f"{KEY}{i}", "label", text) for i, text in enumerate(spelled)]
    form = Inputs(form_text("</title><script>", rows))
    assert form.names == [key for key, _, _ in rows]
    newlines = str.maketrans({"\r": "\n"})
    for text, shown in zip(spelled, form.texts, strict=True):
        assert shown.translate(newlines) == text.translate(newlines)
    assert form.tags.count("script") == 1 and "img" not in form.tags
    parsed = list(csv.DictReader(io.StringIO(sheet_text(rows), newline="")))
    assert [row["question"] for row in parsed] == spelled


def test_the_form_asks_nothing_of_a_network() -> None:
    text = form_text("anna", [(KEY + "0", "detect", "which?")])
    assert "default-src 'none'" in text
    for word in ("http:", "https:", "src=", "@import", "url(", "fetch("):
        assert word not in text


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"key,answer\nnot-a-key,x\n", r":2: not the key of a question"),
        (f"key,answer\n{KEY}0,x\n{KEY}0,y\n".encode(), r":3: a second answer"),
        (b"question,reply\na,b\n", "needs the columns key and answer"),
        (b"key,answer\n\xff\n", "not UTF-8"),
    ],
)
def test_a_damaged_sheet_is_one_line(content: bytes, fault: str, tmp_path: Path) -> None:
    sheet = tmp_path / "ratings.csv"
    sheet.write_bytes(content)
    with pytest.raises(StudyError, match=fault):
        read_sheet(sheet)


def test_an_answer_that_contradicts_the_record_is_refused_and_changes_nothing(
    tmp_path: Path,
) -> None:
    given_settings, record = human(tmp_path)
    asked = [question("first")]
    with pytest.raises(StudyError):
        open_backend(given_settings, record=record).answer(asked)
    sheet = record.with_name("ratings.csv")
    fill(sheet, {"first": "one"})
    open_backend(given_settings, record=record).answer(asked)
    fill(sheet, {"first": "another"})
    with pytest.raises(StudyError, match="another answer to the question"):
        open_backend(given_settings, record=record).answer(asked)
    assert [a.text for a in read_answers(record).values()] == ["one"]


def test_the_form_saves_in_a_browser_what_was_typed(tmp_path: Path) -> None:
    program = installed()
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    texts = [text.encode("utf-8", "replace").decode() for text in HOSTILE]
    rows = [(f"{KEY}{i}", "label", text) for i, text in enumerate(texts)]
    form = tmp_path / "ratings.html"
    form.write_text(form_text("anna", rows), encoding="utf-8")
    browser = Chromium(program, tmp_path)
    try:
        browser.open(form.as_uri())
        browser.wait_for(f"document.querySelectorAll('input').length == {len(rows)}", 120)
        browser.evaluate("window.blobs = []; URL.createObjectURL = (blob) => { "
                         "blob.text().then((text) => blobs.push(text)); return '#'; }; "
                         "HTMLAnchorElement.prototype.click = () => {};")  # fmt: skip
        browser.evaluate(
            "document.querySelectorAll('input').forEach((input, i) => { if (!i) return; "
            'input.value = `a "${i}", so; 🙂`; '
            "input.dispatchEvent(new Event('input', {bubbles: true})); })"
        )
        assert browser.evaluate("document.getElementById('done').textContent") == str(len(rows) - 1)
        browser.evaluate("document.querySelector('button').click()")
        browser.wait_for("blobs.length == 1", 60)
        saved = browser.evaluate("blobs[0]")
    finally:
        browser.close()
    sheet = tmp_path / "ratings.csv"
    sheet.write_bytes(saved.encode())
    assert read_sheet(sheet) == {f"{KEY}{i}": f'a "{i}", so; 🙂' for i in range(1, len(rows))}
    with sheet.open(encoding="utf-8", newline="") as file:
        assert [row["question"] for row in csv.DictReader(file)] == texts
    assert browser.errors == []
    assert {address.partition(":")[0] for address in browser.requests()} <= {"file"}
