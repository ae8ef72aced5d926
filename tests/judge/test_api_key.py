"""The key is sent, and appears nowhere else: not in files, errors, logs or on the terminal."""

import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from sae_repro.errors import StudyError
from sae_repro.judge.backends.api_key import ApiKey
from sae_repro.judge.backends.http import HttpBackend
from sae_repro.params import Judge, check_section

from .conftest import KEY, Endpoint, Response, completion, questions

Make = Callable[..., HttpBackend]


def repeating(status: int, *, in_json: bool) -> Response:
    """A server that tells everyone the key it got, in every place it has."""
    text = f"Incorrect API key provided: {KEY}. Header was: Bearer {KEY}"
    body = json.dumps({"error": {"message": text}}) if in_json else "x" * 190 + text
    return Response(status, body.encode(), {"X-Your-Key": KEY}, f"Not {KEY}")


SCRIPTS: dict[str, Callable[[int, str], Response]] = {
    "refused": lambda n, p: repeating(401, in_json=True),
    "refused in plain text": lambda n, p: repeating(403, in_json=False),
    "failing": lambda n, p: repeating(500, in_json=True),
    "busy": lambda n, p: repeating(429, in_json=False),
    "reset": lambda n, p: Response(act="reset"),
    "malformed": lambda n, p: repeating(200, in_json=True),
    "repeated by the judge": lambda n, p: completion(f"the key is {KEY}{KEY}"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_key_is_shown_nowhere(
    name: str,
    endpoint: Endpoint,
    backend: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint.script = SCRIPTS[name]
    asking = backend()
    shown = [repr(asking)]
    try:
        shown += [repr(asking.answer(questions(2)))]
    except StudyError as error:
        shown += ["".join(traceback.format_exception(error))]
        assert error.__cause__ is None
    assert endpoint.authorizations[0] == f"Bearer {KEY}"
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert any(p.name == "answers.jsonl" for p in files)
    shown += [caplog.text, *capfd.readouterr(), *(p.read_bytes().decode() for p in files)]
    assert not [text for text in shown if KEY in text or KEY[:12] in text]


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_is_named_before_any_request(
    endpoint: Endpoint, backend: Make, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("JUDGE_KEY")
    else:
        monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(StudyError, match=r"judge.key_env = JUDGE_KEY: not set .* replay"):
        backend().answer(questions(1))
    assert not endpoint.prompts


@pytest.mark.parametrize("value", [f"{KEY}\nX-Other: 1", f"{KEY} {KEY}", f"{KEY}é"])
def test_a_key_that_no_header_carries_is_not_repeated(
    backend: Make, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(StudyError, match=r"judge\.key_env = JUDGE_KEY") as caught:
        backend().answer(questions(1))
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_placeholder_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Local servers want any key: "x" must not be cut out of every answer."""
    monkeypatch.setenv("JUDGE_KEY", "x")
    assert ApiKey("JUDGE_KEY").hide("a fox") == "a fox"
    monkeypatch.setenv("JUDGE_KEY", 'quote"and\\slash')
    assert ApiKey("JUDGE_KEY").hide('{"m": "quote\\"and\\\\slash"}') == '{"m": "[key]"}'


@pytest.mark.parametrize(
    "change",
    [
        {"key_env": KEY},
        {"key_env": ""},
        {"base_url": f"https://user:{KEY}@host/v1"},
        {"base_url": f"https://host/v1?key={KEY}"},
        {"base_url": f"ftp://host/{KEY}"},
    ],
)
def test_params_that_hold_a_key_are_refused_without_repeating_it(change: dict[str, str]) -> None:
    raw = {"kind": "http", "model": "m", "base_url": "https://host/v1", **change}
    with pytest.raises(StudyError, match=r"params.yaml: judge\.(key_env|base_url): must be") as e:
        check_section(Judge, raw, within="judge")
    assert KEY not in "".join(traceback.format_exception(e.value))


@pytest.mark.parametrize(
    "raw,message",
    [
        ({"kind": "http", "base_url": "https://host/v1"}, "kind: http needs model"),
        ({"kind": "http", "model": "m"}, "kind: http needs base_url"),
        ({"kind": "replay"}, "kind: replay needs model"),
        ({"kind": "oracle"}, "kind = oracle: must be 'concepts', 'http', 'human' or 'replay'"),
        ({"in_flight": 0}, "judge.in_flight = 0: must be greater than or equal to 1"),
    ],
)
def test_params_that_dont_fit_are_refused(raw: dict[str, object], message: str) -> None:
    with pytest.raises(StudyError) as caught:
        check_section(Judge, raw, within="judge")
    assert message in str(caught.value)


def test_kind_alone_switches_to_replay() -> None:
    raw = {"kind": "http", "model": "m", "base_url": "https://host:8000/v1", "key_env": "K"}
    for kind in ("http", "replay", "concepts"):
        assert check_section(Judge, {**raw, "kind": kind}).kind == kind
