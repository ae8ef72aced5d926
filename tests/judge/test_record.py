"""The file of recorded answers: append-only, crash-safe, the same bytes whatever the order."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.errors import StudyError
from sae_repro.judge import (
    Answer,
    ConceptsBackend,
    Prompt,
    Question,
    ReplayBackend,
    Sampling,
    Truth,
    open_backend,
)
from sae_repro.judge.backends.concepts import excess_fractions
from sae_repro.judge.backends.record import Line, leave_record, not_said, read_answers, recording
from sae_repro.judge.protocol import key_of
from sae_repro.params import Judge

from .conftest import questions

KEYS = [key_of("m", question) for question in questions(4)]
REPLAY = Judge(kind="replay", model="m")


def write(path: Path, *pairs: tuple[str, Answer]) -> None:
    with recording(path) as recorder:
        for key, answer in pairs:
            recorder.add(key, answer)


def test_an_answer_is_on_disk_before_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with recording(path) as recorder:
        recorder.add(KEYS[0], Answer("x"))
        assert read_answers(path) == {KEYS[0]: Answer("x")}


def test_lines_end_up_in_the_order_of_keys_also_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(RuntimeError), recording(path) as recorder:
        for key in sorted(KEYS, reverse=True):
            recorder.add(key, Answer("x"))
        raise RuntimeError
    result = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert result == sorted(KEYS)
    assert {p.name for p in tmp_path.iterdir()} <= {"a.jsonl", ".a.jsonl.lock"}


@given(cut=st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_a_torn_last_line_is_dropped_and_written_over(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("record") / "a.jsonl"
    answers = {key: Answer(f"é{i}\n") for i, key in enumerate(sorted(KEYS))}
    write(path, *answers.items())
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    left = read_answers(path)
    *_, rest = whole[:cut].split(b"\n")
    assert len(left) == whole[:cut].count(b"\n") + rest.endswith(b"}")
    assert left.items() <= answers.items()
    write(path, *((key, answers[key]) for key in answers.keys() - left.keys()))
    assert path.read_bytes() == whole


def test_an_answer_whose_line_end_an_editor_left_out_is_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, (KEYS[0], Answer("x")))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert read_answers(path) == {KEYS[0]: Answer("x")}
    with recording(path) as recorder:
        recorder.add(KEYS[1], Answer("y"))
        assert read_answers(path) == {KEYS[0]: Answer("x"), KEYS[1]: Answer("y")}


def test_answer_after_a_torn_line_begins_a_line(tmp_path: Path) -> None:
    """Should the next run be killed as well, what it wrote must be readable."""
    path = tmp_path / "a.jsonl"
    write(path, (KEYS[0], Answer("x")))
    with path.open("ab") as file:
        file.write(b'{"key":"')
    with recording(path) as recorder:
        recorder.add(KEYS[1], Answer("y"))
        assert read_answers(path) == {KEYS[0]: Answer("x"), KEYS[1]: Answer("y")}


SAID = st.text(st.characters(codec=None), min_size=1).filter(lambda t: not_said(Line(t)) is None)


ANSWERS = st.builds(Answer, SAID) | st.builds(Answer, st.text(), st.just(True))


@given(st.lists(ANSWERS, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_every_answer_survives(
    tmp_path_factory: pytest.TempPathFactory, said: list[Answer]
) -> None:
    path = tmp_path_factory.mktemp("record") / "a.jsonl"
    answers = dict(zip(KEYS, said, strict=False))
    write(path, *answers.items())
    assert read_answers(path) == answers
    content = path.read_bytes()
    write(path)
    assert path.read_bytes() == content


NOT_SAID = {
    "no JSON": Line(None, "no JSON"),
    "no choices": Line(None, "no choices"),
    "an HTML page": Line("\n<!DOCTYPE html><html><title>Log in</title>"),
    "an error object": Line('{"error": {"message": "overloaded", "code": 529}}'),
    "reasoning without an answer": Line("<think>hmm"),
    "an empty text": Line("<think>hmm</think> "),
}
"""Lines that earlier versions wrote, by what messages say of them."""


def old_record(path: Path, lines: dict[str, Line]) -> None:
    written = [
        json.dumps({"fault": line.fault, "key": key, "text": line.text})
        for key, line in sorted(lines.items())
    ]
    path.write_text("".join(f"{line}\n" for line in written))


@pytest.mark.parametrize("what", NOT_SAID)
def test_a_line_that_no_judge_said_is_named_by_replay_and_dropped_by_the_next_run(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    old_record(path, {key: Line("x") for key in KEYS} | {KEYS[1]: NOT_SAID[what]})
    number = sorted(KEYS).index(KEYS[1]) + 1
    with pytest.raises(StudyError, match=rf"a\.jsonl:{number}: no answer .* but {what}; set") as e:
        ReplayBackend(REPLAY, path).answer(questions(4))
    assert "delete the line" in str(e.value)
    others = [questions(4)[i] for i in (0, 2, 3)]
    assert ReplayBackend(REPLAY, path).answer(others) == [Answer("x")] * 3
    assert capsys.readouterr().err == ""
    with recording(path) as recorder:
        assert recorder.answers == {key: Answer("x") for key in KEYS if key != KEYS[1]}
        recorder.add(KEYS[1], Answer("y"))
    assert "1 of 4 lines hold no answer of the judge" in capsys.readouterr().err
    assert read_answers(path) == {key: Answer("y" if key == KEYS[1] else "x") for key in KEYS}


DAMAGED = {
    "no JSON": "oops",
    "no object": "[1]",
    "no key": '{"text": "x", "fault": null}',
    "no hash": '{"key": "abc", "text": "x", "fault": null}',
    "number": f'{{"key": "{KEYS[1]}", "text": 3, "fault": null}}',
    "neither": f'{{"key": "{KEYS[1]}", "text": null, "fault": null}}',
    "both": f'{{"key": "{KEYS[1]}", "text": "x", "fault": "y"}}',
    "more": f'{{"key": "{KEYS[1]}", "text": "x", "fault": null, "more": 1}}',
    "cut by half": f'{{"cut": 0.5, "key": "{KEYS[1]}", "text": "x"}}',
    "empty line": "",
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_line_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.jsonl"
    write(path, (KEYS[0], Answer("x")))
    path.write_text(path.read_text() + DAMAGED[name] + "\n")
    with pytest.raises(StudyError, match=r"a\.jsonl:2: not a recorded answer; restore"):
        read_answers(path)


def test_two_answers_to_one_question_are_a_fault_unless_they_agree(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, (KEYS[0], Answer("x")))
    line = path.read_text()
    path.write_text(line * 2)
    assert read_answers(path) == {KEYS[0]: Answer("x")}
    path.write_text(line + line.replace('"x"', '"y"'))
    with pytest.raises(StudyError, match=r"a\.jsonl:2: a second, different answer"):
        read_answers(path)


def test_the_key_depends_on_model_prompt_version_and_sampling() -> None:
    base = Question(Prompt("label", 1, "text"), Sampling(0.0, 10))
    others = [
        Question(Prompt("label", 1, "text "), Sampling(0.0, 10)),
        Question(Prompt("label", 2, "text"), Sampling(0.0, 10)),
        Question(Prompt("fuzz", 1, "text"), Sampling(0.0, 10)),
        Question(Prompt("label", 1, "text"), Sampling(0.5, 10)),
        Question(Prompt("label", 1, "text"), Sampling(0.0, 11)),
        Question(Prompt("label", 1, "text"), Sampling(0.0, 10, seed=1)),
    ]
    keys = {key_of("m", question) for question in [base, *others]} | {key_of("n", base)}
    assert len(keys) == 8
    assert key_of("m", Question(base.prompt, Sampling(0, 10), truth=Truth(()))) == key_of("m", base)


def test_keys_are_pinned() -> None:
    """Another key for the same question would throw away every record there is."""
    question = Question(Prompt("label", 1, "é"), Sampling(0.0, 10))
    assert (
        key_of("m", question) == "9ecbb4888698b53f840f7fe6d6e8406b2b88ff153a8903138608fa4d378f8a62"
    )


def test_replay_counts_missing_answers_and_names_the_command_that_records_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.jsonl"
    requests = questions(4)
    write(path, (KEYS[2], Answer("x")))
    message = (
        r"a\.jsonl: 3 of 4 answers of m are missing; .* judge\.kind: http and run `make judge`"
    )
    with pytest.raises(StudyError, match=message):
        ReplayBackend(REPLAY, path, command="make judge").answer([*requests, requests[0]])
    assert ReplayBackend(REPLAY, path).answer([requests[2], requests[2]]) == [Answer("x")] * 2
    with pytest.raises(StudyError, match="4 of 4"):
        ReplayBackend(REPLAY, tmp_path / "none.jsonl").answer(requests)


def carrying(prompt: str, explanation: str, *contexts: set[str]) -> Question:
    truth = Truth(tuple(frozenset(concepts) for concepts in contexts), explanation)
    return Question(Prompt(prompt, 1, ""), truth=truth)


def test_concepts_answer_with_the_truth() -> None:
    judge = ConceptsBackend(Judge(concept_share=0.75), {"verb": 0.0})
    questions = [
        carrying("label", "", {"verb", "said"}, {"verb"}, {"verb"}, {"noun"}),
        carrying("label", "", {"verb"}, {"noun"}),
        carrying("label", "", set(), set()),
        carrying("label", "", {"zebra", "animal"}, {"animal", "zebra"}),
        carrying("explain", "", {"verb"}, {"noun"}, {"verb"}, set()),
        carrying("detect", "verb", {"verb", "noun"}, set(), {"noun"}),
        carrying("fuzz", "token:", {"token:<"}, {"token:b"}),
    ]
    result = [answer.text for answer in judge.answer(questions)]
    assert result == ["verb", "POLYSEMANTIC", "POLYSEMANTIC", "animal", "verb", "[1,0,0]", "[1,0]"]
    with pytest.raises(StudyError, match="cannot answer the prompt simulate; use kind: http"):
        judge.answer([Question(Prompt("simulate", 1, ""))])


def test_a_common_concept_earns_nothing() -> None:
    """Three of four contexts carry it, as three of four tokens anywhere do."""
    contexts = [{"word"}, {"word", "verb"}, {"word", "verb"}, {"verb"}]
    assert excess_fractions(contexts) == {"verb": 0.75, "word": 0.75}
    result = excess_fractions(contexts, {"word": 0.75, "verb": 0.5, "all": 1.0})
    assert result == {"verb": 0.5, "word": 0.0}
    assert excess_fractions([{"all"}], {"all": 1.0}) == {}


def test_params_choose_the_backend(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    http = Judge(kind="http", model="m", base_url="https://host/v1")
    assert type(open_backend(http, record=path)).__name__ == "HttpBackend"
    assert type(open_backend(REPLAY, record=path)) is ReplayBackend
    assert type(open_backend(Judge(), record=path)) is ConceptsBackend


def test_a_record_without_answers_has_one_empty_line_until_there_is_an_answer(
    tmp_path: Path,
) -> None:
    path = tmp_path / "judge" / "a.jsonl"
    leave_record(path)
    assert path.read_bytes() == b"\n"
    assert read_answers(path) == {}
    write(path, (KEYS[0], Answer("x")))
    assert len(path.read_bytes().splitlines()) == 1
    assert read_answers(path) == {KEYS[0]: Answer("x")}
    leave_record(path)
    assert read_answers(path) == {KEYS[0]: Answer("x")}
