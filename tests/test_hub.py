"""Errors of the hub: one line that says what to do."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sae_repro.errors import StudyError
from sae_repro.hub import fetching, reachable
from sae_repro.params import HubSubject
from sae_repro.subject.download import download

MODEL = HubSubject(kind="hub", name="someone/model", revision="c" * 40, d_model=16, n_layers=2)


class Hub(BaseHTTPRequestHandler):
    """A hub that is up; what it says of every repository is `answer`, `code`."""

    answer, code = 404, "RepoNotFound"

    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/" else self.answer)
        self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815 - the name that http.server looks up

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    class Mine(Hub):
        pass

    server = HTTPServer(("127.0.0.1", 0), Mine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield Mine
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("answer,code", [(404, "RepoNotFound"), (404, "RevisionNotFound")])
def test_a_missing_repository_is_not_a_network_error(
    hub: type[Hub], tmp_path: Path, answer: int, code: str
) -> None:
    hub.answer, hub.code = answer, code
    with pytest.raises(StudyError, match=r"someone/model at c+: the hub .* has no such") as caught:
        download(MODEL, tmp_path)
    assert "hf auth login" in str(caught.value)
    assert "can't be reached" not in str(caught.value)


def test_a_failing_hub_is_a_network_error(hub: type[Hub], tmp_path: Path) -> None:
    hub.answer, hub.code = 403, ""
    with pytest.raises(StudyError, match=r"can't be reached .*403"):
        download(MODEL, tmp_path)


def test_a_time_out_is_a_network_error(hub: type[Hub]) -> None:
    import httpx2

    reachable("the weights")
    message = r"the weights: .* can't be reached \(too slow\)"
    with pytest.raises(StudyError, match=message), fetching("the weights"):
        raise httpx2.ReadTimeout("too slow")
