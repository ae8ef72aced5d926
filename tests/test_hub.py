"""Errors of the hub: one line that says what to do."""

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from sae_repro import hub as hub_module
from sae_repro.errors import StudyError
from sae_repro.hub import commit_of, config_of, fetching, reachable
from sae_repro.params import HubSubject
from sae_repro.subject.download import download

from .peers import MODES, SLOW, Peer

MODEL = HubSubject(kind="hub", name="someone/model", revision="c" * 40, d_model=16, n_layers=2)


@pytest.mark.parametrize("answer,code", [(404, "RepoNotFound"), (404, "RevisionNotFound")])
def test_a_missing_repository_is_not_a_network_error(
    hub: Any, tmp_path: Path, answer: int, code: str
) -> None:
    hub.answer, hub.code = answer, code
    with pytest.raises(StudyError, match=r"someone/model at c+: the hub .* has no such") as caught:
        download(MODEL, tmp_path)
    assert "hf auth login" in str(caught.value)
    assert "can't be reached" not in str(caught.value)


def test_a_failing_hub_is_a_network_error(hub: Any, tmp_path: Path) -> None:
    hub.answer, hub.code = 403, ""
    with pytest.raises(StudyError, match=r"can't be reached .*403"):
        download(MODEL, tmp_path)


def test_a_time_out_is_a_network_error(hub: Any) -> None:
    import httpx2

    reachable("the weights")
    message = r"the weights: .* can't be reached \(too slow\)"
    with pytest.raises(StudyError, match=message), fetching("the weights"):
        raise httpx2.ReadTimeout("too slow")


@pytest.fixture
def at(hub: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts the hub at another address, and lowers its deadlines."""
    for name in ("TIMEOUT_S", "SMALL_FILE_S"):
        monkeypatch.setattr(hub_module, name, 0.5)

    def put(url: str) -> None:
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            url + "/{repo_id}/resolve/{revision}/{filename}",
        )

    return put


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_a_hub_ends_in_one_line(
    mode: str, at: Callable[[str], None], peer: Callable[[str], Peer]
) -> None:
    at(peer(mode).url)
    with pytest.raises(StudyError, match="the commit of model someone/model: ") as caught:
        commit_of("model", "someone/model", None)
    assert "\n" not in str(caught.value)
    if mode in SLOW:
        assert "within 0.5 s" in str(caught.value) or "timed out" in str(caught.value)


@pytest.mark.timeout(60)
def test_a_file_of_a_hub_that_drips_has_a_deadline(
    at: Callable[[str], None], peer: Callable[[str], Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    at(peer("drips headers").url)
    monkeypatch.setattr(hub_module, "reachable", lambda what: None)
    with pytest.raises(StudyError, match=r"config\.json of someone/model .* within 0\.5 s"):
        config_of("someone/model", "c" * 40)


@pytest.mark.timeout(60)
def test_a_proxy_that_never_answers_has_a_deadline(
    at: Callable[[str], None], peer: Callable[[str], Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import close_session

    at("https://hub.invalid")
    close_session()  # the client reads the variable when it is made
    monkeypatch.setenv("HTTPS_PROXY", peer("drips headers").url)
    with pytest.raises(StudyError, match=r"the weights: .* within 0\.5 s"):
        reachable("the weights")
    close_session()


@pytest.mark.timeout(60)
def test_a_hanging_look_up_of_the_name_has_a_deadline(
    at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    released = Event()
    at("https://hub.invalid")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: released.wait())
    try:
        with pytest.raises(StudyError, match=r"the weights: .* within 0\.5 s"):
            reachable("the weights")
    finally:
        released.set()
