"""A real server that is well, busy, slow, broken or hostile."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, as_completed
from pathlib import Path
from threading import Event, Semaphore, Thread

import pytest

from sae_repro.errors import StudyError
from sae_repro.judge import Answer, Prompt, Question, ReplayBackend, Sampling
from sae_repro.judge.backends import http
from sae_repro.judge.backends.http import HttpBackend
from sae_repro.judge.backends.rate_limit import Clock
from sae_repro.judge.backends.record import read_answers, recording
from sae_repro.judge.backends.replies import MAX_BYTES
from sae_repro.judge.protocol import key_of

from .conftest import Endpoint, FakeClock, Response, completion, echo, http_settings, questions

Make = Callable[..., HttpBackend]


def texts(answers: list[Answer]) -> list[str | None]:
    return [answer.text for answer in answers]


def test_answers_come_in_the_order_of_the_questions(endpoint: Endpoint, backend: Make) -> None:
    requests = questions(20)
    answers = backend(in_flight=5).answer([*requests, requests[3]])
    assert texts(answers) == [f"answer to question {i}" for i in [*range(20), 3]]
    assert len(endpoint.prompts) == 20, "an equal question is asked once"


def test_the_request_follows_the_protocol(endpoint: Endpoint, backend: Make) -> None:
    backend().answer([Question(Prompt("label", 1, 'a "b"\n\ud800 é'), Sampling(0.5, 7, seed=3))])
    assert endpoint.paths == ["/v1/chat/completions"]
    assert endpoint.authorizations == ["Bearer sk-test-0123456789abcdef"]
    assert endpoint.bodies == [
        {
            "model": "some-model",
            "messages": [{"role": "user", "content": 'a "b"\n\ud800 é'}],
            "temperature": 0.5,
            "max_tokens": 7,
            "seed": 3,
        }
    ]


def test_an_endpoint_without_a_key_gets_none(endpoint: Endpoint, backend: Make) -> None:
    backend(key_env=None).answer(questions(1))
    assert endpoint.authorizations == [None]


def test_an_endless_answer_is_cut_off(endpoint: Endpoint, backend: Make, record: Path) -> None:
    endpoint.script = lambda n, prompt: Response(act="flood")
    begun = time.monotonic()
    with pytest.raises(StudyError, match=f"status 200 with more than {MAX_BYTES} bytes"):
        backend(timeout_s=3600).answer(questions(1))
    assert time.monotonic() - begun < 15
    assert read_answers(record) == {}


@pytest.mark.parametrize("status", [500, 502, 503, 408, 429])
def test_temporary_failures_are_retried(
    endpoint: Endpoint, backend: Make, clock: FakeClock, status: int
) -> None:
    endpoint.script = lambda n, prompt: Response(status) if n < 2 else echo(prompt)
    assert texts(backend().answer(questions(1))) == ["answer to question 0"]
    assert len(endpoint.prompts) == 3
    assert 0.5 <= clock.slept[0] <= 1
    assert 1 <= clock.slept[1] <= 2


@pytest.mark.parametrize("act", ["reset", "cut"])
def test_broken_connections_are_retried(endpoint: Endpoint, backend: Make, act: str) -> None:
    endpoint.script = lambda n, prompt: Response(body=b"{", act=act) if n == 0 else echo(prompt)
    assert texts(backend().answer(questions(1))) == ["answer to question 0"]
    assert len(endpoint.prompts) == 2


@pytest.mark.parametrize("act", ["slow", "drip"])
def test_timeouts_are_retried(
    endpoint: Endpoint, backend: Make, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Dripping bytes reset the client's own limit each time: it would wait for ever."""
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.01)
    endpoint.script = lambda n, prompt: Response(act=act) if n == 0 else echo(prompt)
    slow = backend(wait=Clock(), timeout_s=0.3)
    begun = time.monotonic()
    assert texts(slow.answer(questions(1))) == ["answer to question 0"]
    assert time.monotonic() - begun < 15
    assert len(endpoint.prompts) == 2


def test_the_final_error_has_the_cause_the_kept_answers_and_the_remedy(
    endpoint: Endpoint, backend: Make, record: Path
) -> None:
    endpoint.script = lambda n, prompt: echo(prompt) if n < 4 else Response(500, b"out of\norder")
    with pytest.raises(StudyError) as caught:
        backend().answer(questions(6))
    message = str(caught.value)
    assert "\n" not in message
    assert (
        "no answer in 3 attempts, last error: 500 Internal Server Error (out of order)" in message
    )
    assert f"4 of 6 answers are kept in {record}" in message
    assert "lower judge.requests_per_minute" in message
    assert len(endpoint.prompts) == 4 + 3
    endpoint.script = lambda _, prompt: echo(prompt)
    assert texts(backend().answer(questions(6))) == [f"answer to question {i}" for i in range(6)]
    assert endpoint.prompts[7:] == ["question 4", "question 5"], "what was kept is not asked again"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 307])
def test_a_refusal_is_not_retried(endpoint: Endpoint, backend: Make, status: int) -> None:
    body = json.dumps({"error": {"message": "no such model"}}).encode()
    headers = {"Location": "http://127.0.0.1:1/"}
    endpoint.script = lambda n, prompt: Response(status, body, headers)
    with pytest.raises(StudyError, match=rf"refused: {status} .* \(no such model\); .*judge\."):
        backend().answer(questions(5))
    assert len(endpoint.prompts) == 1


def test_a_refused_worker_sends_no_further_request(
    endpoint: Endpoint, backend: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the thread that collects the answers is slow to notice."""

    def late(futures: list[Future[None]]) -> Iterator[Future[None]]:
        time.sleep(0.5)
        return as_completed(futures)

    monkeypatch.setattr(http, "as_completed", late)
    endpoint.script = lambda n, prompt: Response(401)
    with pytest.raises(StudyError, match="401"):
        backend().answer(questions(5))
    assert len(endpoint.prompts) == 1


def test_an_unreachable_server_or_an_invalid_url_ends_the_run(
    endpoint: Endpoint, backend: Make
) -> None:
    endpoint.close()
    with pytest.raises(StudyError, match=r"no answer in 3 attempts, last error: ConnectError"):
        backend().answer(questions(1))
    with pytest.raises(StudyError, match="not a valid URL"):
        backend(base_url="http://127.0.0.1:port/v1").answer(questions(1))


def test_an_interrupted_run_resumes_with_the_missing_answers(
    endpoint: Endpoint, tmp_path: Path, backend: Make
) -> None:
    """kill -9 while the sixth answer is awaited: the five are there, and not asked again."""
    waiting = Event()

    def script(n: int, prompt: str) -> Response:
        if n == 5:
            waiting.set()
            return Response(act="slow")
        return echo(prompt)

    endpoint.script = script
    code = f"""
from pathlib import Path
from sae_repro.judge import Prompt, Question
from sae_repro.judge.backends.http import HttpBackend
from sae_repro.params import Judge
settings = Judge(**{http_settings(endpoint.url).model_dump()!r})
record = Path({str(tmp_path / "judge" / "answers.jsonl")!r})
asked = [Question(Prompt("label", 1, f"question {{i}}")) for i in range(8)]
HttpBackend(settings, record).answer(asked)
"""
    killed = subprocess.Popen([sys.executable, "-c", code])
    assert waiting.wait(60)
    killed.kill()
    killed.wait()
    endpoint.released.set()
    assert texts(backend().answer(questions(8))) == [f"answer to question {i}" for i in range(8)]
    assert endpoint.prompts == [f"question {i}" for i in (0, 1, 2, 3, 4, 5, 5, 6, 7)]


def test_the_record_does_not_depend_on_the_order_of_answers(
    endpoint: Endpoint, backend: Make, tmp_path: Path
) -> None:
    files = []
    for late in ("question 0", "question 5"):
        others = Semaphore(0)

        def script(n: int, prompt: str, late: str = late, others: Semaphore = others) -> Response:
            if prompt == late:
                assert all(others.acquire(timeout=20) for _ in range(5))
            else:
                others.release()
            return echo(prompt)

        endpoint.script = script
        path = tmp_path / late.replace(" ", "-")
        backend(to=path, in_flight=2).answer(questions(6))
        files.append(path.read_bytes())
    assert files[0] == files[1]
    lines = files[0].splitlines()
    assert len(lines) == 6
    assert lines == sorted(lines, key=lambda line: json.loads(line)["key"])


def test_a_second_run_waits_for_the_first_and_repeats_no_request(
    endpoint: Endpoint, backend: Make, record: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answers = []
    second = Thread(target=lambda: answers.extend(backend().answer(questions(2))))
    with recording(record) as first:
        second.start()
        for _ in range(400):
            if "another run is writing" in (message := capfd.readouterr().err):
                break
            time.sleep(0.05)
        assert f"judge: another run is writing to {record}; waiting" in message
        first.add(key_of("some-model", questions(1)[0]), Answer("from the first"))
    second.join(20)
    assert texts(answers) == ["from the first", "answer to question 1"]
    assert endpoint.prompts == ["question 1"]


def test_replay_gives_the_same_bytes_without_key_or_server(
    endpoint: Endpoint,
    backend: Make,
    record: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint.script = lambda n, prompt: (
        completion(f"é \ud800 {prompt}\r\n ") if n % 2 else Response()
    )
    requests = questions(6)
    first = backend().answer(requests)
    content = record.read_bytes()
    settings = http_settings(endpoint.url)
    endpoint.close()
    monkeypatch.delenv("JUDGE_KEY")
    replay = ReplayBackend(settings.model_copy(update={"kind": "replay"}), record)
    assert replay.answer(requests) == first
    assert replay.answer(requests[::-1]) == first[::-1]
    assert HttpBackend(settings, record).answer(requests) == first, "nothing is missing, no request"
    assert record.read_bytes() == content
