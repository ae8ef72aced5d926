"""Whatever an endpoint sends, only what the model says is recorded; the rest ends in one line."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sae_repro.errors import StudyError
from sae_repro.judge import Answer
from sae_repro.judge.backends.http import HttpBackend
from sae_repro.judge.backends.record import read_answers
from sae_repro.judge.backends.replay import ReplayBackend
from sae_repro.judge.backends.replies import MAX_BYTES, instead_of_answer
from sae_repro.judge.parsers import Counts, read

from .conftest import KEY, Endpoint, FakeClock, Response, echo, http_settings, questions

Make = Callable[..., HttpBackend]


def of(value: object, status: int = 200) -> Response:
    return Response(status, json.dumps(value).encode())


def choice(content: object, reason: object = "stop", **more: object) -> Response:
    message = {"role": "assistant", "content": content, **more}
    return of({"choices": [{"message": message, "finish_reason": reason}]})


def error(code: object, message: object = f"failed with {KEY}") -> Response:
    return of({"error": {"message": message, "code": code}})


FAILURES: dict[str, tuple[Response, str]] = {
    "an error object": (error(None), r"the error \(failed with \[key\]\); retry later"),
    "an error of another form": (of({"error": "busy"}), r'the error \("busy"\)'),
    "an error in a list": (of([{"error": {"message": "busy"}}]), r"the error \(busy\)"),
    "an error beside choices": (of({"error": {"message": "x"}, "choices": []}), r"error \(x\)"),
    "an error in a choice": (of({"choices": [{"error": {"message": "x", "code": 502},
                                              "message": {"content": "half"}}]}), "error 502"),
    "a wrong key": (error(401), r"error 401 .*judge\.key_env = JUDGE_KEY"),
    "a rate limit": (error(429), r"error 429 .*judge\.requests_per_minute"),
    "a login page": (Response(body=b"\n<!DOCTYPE html><html><head><title>Log in</title>"),
                     r"an HTML page \(Log in\); .*judge\.base_url"),
    "a page as the text": (choice("<html><body>502 Bad Gateway"), "an HTML page in place"),
    "an error as the text": (choice('{"error": {"message": "no"}}'), "an error object in place"),
    "no body": (Response(), "an empty body"),
    "no text": (Response(body=b"\xff\xfe\x00"), "no JSON"),
    "Latin-1": (Response(body='{"choices": [{"message": {"content": "é"}}]}'.encode("latin-1")),
                "no JSON"),
    "half a body": (Response(body=b'{"choices": [{"message": {"content": "answer to q'), "no JSON"),
    "a stream": (Response(body=b'data: {"choices": []}\n\n'), r"no JSON \(data:"),
    "deep": (Response(body=b"[" * 100_000), "no JSON"),
    "huge": (Response(body=b" " * (MAX_BYTES + 1)), "more than"),
    "no choices": (of({"choices": []}), "JSON without choices"),
    "a detail": (of({"detail": "Not authenticated"}), r"without choices \(Not authenticated\)"),
    "null choices": (of({"choices": None}), "JSON without choices"),
    "choices of another form": (of({"choices": {"0": 1}}), "JSON without choices"),
    "another document": (of([1]), "JSON without choices"),
    "no message": (of({"choices": [{"message": None}]}), "a message without a text"),
    "null": (choice(None), r"a message without a text; .*judge\.model = some-model"),
    "a number": (choice(3), "a message without a text"),
    "reasoning alone": (choice(None, reasoning_content="hmm"), "a message without a text"),
    "no parts": (choice([]), "a message without a text"),
    "a picture": (choice([{"type": "image_url", "image_url": {}}]), "a message without a text"),
    "nothing said": (choice(" \n"), "a message with an empty text"),
    "thoughts alone": (choice("<think>hmm</think>\n"), "a message with an empty text"),
    "a tool call": (choice(None, "tool_calls"), r"did not end \(finish_reason tool_calls\)"),
    "an aborted answer": (choice("answer to", "error"), r"did not end \(finish_reason error\)"),
    "a reason of another form": (choice("answer to", 1), "did not end"),
}  # fmt: skip
CUT_OFF = r"cut off .*raise judge\.max_tokens = 512"
FINAL = [
    (choice("answer to", "content_filter"), r"withheld by a filter .*judge\.model"),
    (choice(None, "SAFETY"), "withheld by a filter"),
    (choice(None, refusal="I can't help with that"), r"a refusal \(I can't help"),
    (choice("names of", "length"), CUT_OFF),
    (choice("names of", "MAX_TOKENS"), CUT_OFF),
    (choice(None, "length"), CUT_OFF),
    (choice(None, "length", reasoning_content="hmm"), CUT_OFF),
    (choice("<think>hmm"), CUT_OFF),
    (choice("<think>hmm", "length"), CUT_OFF),
    (choice([{"type": "text", "text": "names of"}], "length"), CUT_OFF),
]


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_with_status_200_is_retried_and_never_recorded(
    endpoint: Endpoint, backend: Make, record: Path, name: str
) -> None:
    response, says = FAILURES[name]
    endpoint.script = lambda n, prompt: response
    with pytest.raises(StudyError, match=says) as caught:
        backend().answer(questions(2))
    message = str(caught.value)
    assert "no answer in 3 attempts, last error: status 200 with " in message
    assert endpoint.url in message and "0 of 2 answers are kept" in message
    assert "\n" not in message and KEY not in message
    assert len(endpoint.prompts) == 3
    assert read_answers(record) == {}
    endpoint.script = lambda n, prompt: response if n == 3 else echo(prompt)
    answers = [Answer("answer to question 0"), Answer("answer to question 1")]
    assert backend().answer(questions(2)) == answers
    assert set(read_answers(record).values()) == set(answers)


@pytest.mark.parametrize(("response", "says"), FINAL)
def test_an_answer_that_would_come_again_ends_the_run_at_once(
    endpoint: Endpoint, backend: Make, record: Path, response: Response, says: str
) -> None:
    endpoint.script = lambda n, prompt: response if n == 1 else echo(prompt)
    with pytest.raises(StudyError, match=says) as caught:
        backend().answer(questions(3))
    assert "1 of 3 answers are kept" in str(caught.value)
    assert len(endpoint.prompts) == 2, "the same would come again"
    assert list(read_answers(record).values()) == [Answer("answer to question 0")]


CUT = {
    "names of": choice("names of", "length"),
    "names": choice([{"type": "text", "text": "names"}], "MAX_TOKENS"),
    "[1, 0]": choice("<think>hmm</think>[1, 0]", "length"),
    "": choice("<think>hmm"),
}


@pytest.mark.parametrize("text", CUT)
def test_a_judge_that_rambles_is_counted_instead_where_the_study_says_so(
    endpoint: Endpoint, backend: Make, record: Path, text: str
) -> None:
    endpoint.script = lambda n, prompt: CUT[text] if n == 1 else echo(prompt)
    answers = backend(cut_off="unparsable").answer(questions(3))
    assert answers[1] == Answer(text, cut=True)
    assert read(answers, lambda said: said)[1] == Counts(parsed=2, unparsable=1)
    replay = http_settings(endpoint.url, kind="replay")
    assert ReplayBackend(replay, record).answer(questions(3)) == answers
    assert backend(cut_off="unparsable").answer(questions(3)) == answers
    assert len(endpoint.prompts) == 3, "a recorded answer is not asked for again"


@pytest.mark.parametrize(
    ("content", "more"),
    [
        ("cats", {}),
        ("cats", {"reasoning_content": "hmm", "refusal": None, "tool_calls": []}),
        ("<think>hmm</think>\n\ncats", {}),
        ("hmm\n</think>\n\ncats", {}),
        ([{"type": "text", "text": "cats"}], {}),
        ([{"type": "text", "text": "ca"}, {"type": "output_text", "text": "ts"}], {}),
        ([{"type": "thinking", "thinking": []}, {"type": "text", "text": "cats"}], {}),
        (["ca", "ts"], {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("reason", ["stop", None, "end_turn", "STOP", "eos"])
def test_what_the_model_says_is_recorded_without_its_reasoning(
    endpoint: Endpoint, backend: Make, content: object, more: dict[str, Any], reason: object
) -> None:
    endpoint.script = lambda n, prompt: choice(content, reason, **more)
    assert backend().answer(questions(1)) == [Answer("cats")]


@pytest.mark.parametrize(
    ("status", "message", "says"),
    [
        (301, "", r"judge\.base_url"),
        (400, "temperature 0 is not supported, only 1", r"judge\.temperature = 0 "),
        (400, "Unknown model", r"judge\.model = some-model"),
        (400, "This model's maximum context length is 512 tokens", r"judge\.context_tokens"),
        (400, "max_tokens is too large: 512", r"judge\.max_tokens = 512"),
        (400, "max_tokens exceeds the context", r"judge\.max_tokens = 512 .*, or lower judge\.con"),
        (400, "API key not valid", r"judge\.key_env = JUDGE_KEY"),
        (401, "", r"judge\.key_env = JUDGE_KEY"),
        (402, "Insufficient credits", "no credit left"),
        (403, "", r"judge\.key_env = JUDGE_KEY .*judge\.model"),
        (404, "", r"judge\.base_url, .*judge\.model"),
        (405, "", r"judge\.base_url"),
        (413, "", r"judge\.context_tokens"),
        (422, "", r"judge\.temperature = 0"),
        (429, "quota", r"judge\.requests_per_minute and in_flight; if the quota"),
        (500, "", "retry later"),
        (529, "overloaded", "retry later"),
    ],
)
def test_the_advice_names_the_key_of_params(
    endpoint: Endpoint, backend: Make, status: int, message: str, says: str
) -> None:
    endpoint.script = lambda n, prompt: of({"error": {"message": message}}, status)
    with pytest.raises(StudyError, match=rf"{status}.*; {says}|{status}.*; .*{says}"):
        backend().answer(questions(1))


def test_an_endpoint_that_wants_a_key_names_the_one_to_set(
    endpoint: Endpoint, backend: Make
) -> None:
    endpoint.script = lambda n, prompt: Response(401)
    with pytest.raises(StudyError, match=r"wants a key: .* into judge\.key_env"):
        backend(key_env=None).answer(questions(1))


@pytest.mark.parametrize("status", [400, 422, 200])
@pytest.mark.parametrize("in_flight", [1, 4])
def test_the_limit_goes_by_the_name_that_the_model_takes(
    endpoint: Endpoint, backend: Make, record: Path, capfd: pytest.CaptureFixture[str],
    status: int, in_flight: int,
) -> None:  # fmt: skip
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."

    def script(n: int, prompt: str) -> Response:
        refused = "max_tokens" in endpoint.bodies[n]
        return of({"error": {"message": message}}, status) if refused else echo(prompt)

    endpoint.script = script
    answers = backend(in_flight=in_flight, attempts=1).answer(questions(6))
    assert answers == [Answer(f"answer to question {i}") for i in range(6)]
    sent = [body["max_completion_tokens"] for body in endpoint.bodies if "max_tokens" not in body]
    assert sent == [512] * 6
    assert len(endpoint.bodies) <= 6 + in_flight, "a refused name is not tried again"
    assert capfd.readouterr().err.count("is sent as max_completion_tokens") == 1
    # the same question: what was recorded under the other name is not asked again
    endpoint.script = lambda n, prompt: Response(500)
    assert backend().answer(questions(6)) == answers


def test_a_limit_refused_by_both_names_ends_the_run(endpoint: Endpoint, backend: Make) -> None:
    endpoint.script = lambda n, prompt: of({"error": {"message": "max_completion_tokens?"}}, 400)
    with pytest.raises(StudyError, match=r"request refused: 400 .*judge\.max_tokens"):
        backend().answer(questions(1))
    assert len(endpoint.prompts) == 2


def said(text: str) -> list[Response]:
    """Ways to say `text`, whose answers are recorded."""
    return [
        choice(text),
        choice(f"<think>{text}?</think>\n{text}"),
        choice([{"type": "reasoning", "text": "hmm"}, {"type": "text", "text": text}], None),
    ]


BEHAVIOURS = st.one_of(
    st.integers(0, 2),  # a way to say it
    st.sampled_from([response for response, _ in FAILURES.values()]),
    st.sampled_from([choice("half", "length"), choice("<think>half")]),
    st.sampled_from([301, 400, 401, 403, 404, 408, 429, 500, 502, 503, 529]).flatmap(
        lambda status: st.sampled_from(
            [Response(status, f"<html>{KEY}".encode()), of({"error": {"message": KEY}}, status),
             Response(status, b"\xff", {"Retry-After": "3"}), Response(status)]
        )
    ),
    st.sampled_from(["reset", "cut"]).map(lambda act: Response(body=b"{", act=act)),
)  # fmt: skip


@given(st.lists(BEHAVIOURS, max_size=12))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_endpoint_of_any_behaviour_is_recorded_right_or_refused(
    endpoint: Endpoint, behaviours: Sequence["int | Response"]
) -> None:
    """The record holds answers of the model alone, and the next run asks for the others."""
    first = len(endpoint.prompts)

    def script(n: int, prompt: str) -> Response:
        behaviour = behaviours[n - first] if n - first < len(behaviours) else 0
        return said(f"answer to {prompt}")[behaviour] if isinstance(behaviour, int) else behaviour

    endpoint.script = script
    expected = [Answer(f"answer to question {i}") for i in range(3)]
    clock = FakeClock()
    with TemporaryDirectory() as folder:
        record = Path(folder) / "answers.jsonl"
        backend = HttpBackend(http_settings(endpoint.url), record, clock=clock)
        try:
            assert backend.answer(questions(3)) == expected
        except StudyError as failure:
            assert len(str(failure).splitlines()) == 1
            assert KEY not in str(failure)
        assert set(read_answers(record).values()) <= set(expected)
        assert KEY not in record.read_text()
        assert len(endpoint.prompts) - first <= 3 * 3 + 3
        assert sum(clock.slept) < 3 * 3 * 60
        endpoint.script = lambda n, prompt: echo(prompt)
        assert backend.answer(questions(3)) == expected


@pytest.mark.parametrize("text", ["<!---->" * 5000 + "x", "<!---->\n" * 5000, "<title" * 100_000])
def test_markup_without_end_is_read_in_a_moment(text: str) -> None:
    # in a process of its own: a search that tries all splits would not end in years
    code = (
        "import sys\nfrom sae_repro.judge.backends.replies import instead_of_answer, message_in\n"
        "text = sys.stdin.read()\nprint(instead_of_answer(text), len(message_in(text.encode())))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["None", str(len(text))], done.stderr


def test_a_page_behind_comments_is_a_page() -> None:
    assert instead_of_answer("<!-- a --> <?xml v?>\n<!-- b --><html>") == "an HTML page"
